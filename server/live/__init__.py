"""A run while it goes on, or after: in a terminal, on a page, and for Prometheus."""
