"""Models of numbers: detectors for records and series, and what they share."""
