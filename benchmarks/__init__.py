"""Measurements that back the figures in `docs/benchmarks.md`; each is a command of its own."""
