"""Trained models by name and version."""
