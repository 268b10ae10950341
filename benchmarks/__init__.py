"""Measurements behind the figures in `docs/benchmarks.md`, each a command of its own."""
