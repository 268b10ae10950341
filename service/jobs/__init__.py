"""Fine-tuning jobs: their store, which is also their queue, and the worker that runs them."""
