"""Forecasters of readings, with prediction intervals."""
