"""Detectors and forecasters fitted to readings, and their plots."""
