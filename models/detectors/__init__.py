"""Anomaly detectors over embeddings: how far is this from what normal looks like?"""
