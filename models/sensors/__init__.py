"""Sensor models: detectors of anomalies in readings, and forecasters."""
