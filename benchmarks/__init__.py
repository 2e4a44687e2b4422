"""Where the README's numbers come from: each module runs with ``python -m benchmarks.NAME``."""
