"""Fake boards: folders whose files behave as a Jetson's, and the kernel that is behind them."""
