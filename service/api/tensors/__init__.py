"""The Open Inference Protocol, for any transport: models as contracts of tensors."""
