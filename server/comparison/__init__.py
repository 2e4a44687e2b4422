"""Comparing selection policies: a grid of runs, what each took, and the report on them."""
