"""Training of the encoder itself: batches, losses, LoRA, checkpoints."""
