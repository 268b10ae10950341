"""Measurements that back the figures in `benchmarks/NOTES.md` and `RESULTS.md`; each is a command of its own."""
