"""Detectors of records, which are rows without time, on generated kinds of tables."""
