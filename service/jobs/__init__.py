"""Fine-tuning jobs: their store, their queue, and the worker that runs them."""
