"""Training files: how they are read, validated and divided."""
