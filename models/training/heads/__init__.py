"""Heads and detectors fitted to the embeddings of a frozen encoder."""
