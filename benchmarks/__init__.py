"""The library timed beside what a practitioner would use instead: ``python -m benchmarks``."""
