"""Models of numbers: detectors and forecasters of records and series."""
