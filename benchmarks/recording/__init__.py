"""What recording costs, and how true a recording is, on whole calls: ``python -m benchmarks.recording``."""
