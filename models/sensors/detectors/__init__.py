"""Anomaly detectors on readings, of records and of series."""
