"""Models of numbers: detectors and forecasters of readings."""
