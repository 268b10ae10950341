"""PyTorch models: where they come from, how they read text and how they score it. Knows nothing of HTTP."""
