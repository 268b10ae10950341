"""Training: from rows of examples to a model directory."""
