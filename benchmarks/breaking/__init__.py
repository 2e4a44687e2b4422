"""The parts of `python -m benchmarks.break`: how cases are made, tried, and their doors."""
