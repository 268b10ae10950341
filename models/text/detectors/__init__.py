"""Anomaly detectors on embeddings of texts."""
