"""Image anomaly detectors on patch features."""
