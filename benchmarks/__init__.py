"""Measures of the whole: each package here is run by `python -m benchmarks.NAME`."""
