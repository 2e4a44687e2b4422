"""Fulcrum: the mode and batch sizes that serve training and inference best under their budgets."""
