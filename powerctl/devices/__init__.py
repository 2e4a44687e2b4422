"""Implementations of the Device protocol: ``twin`` (a simulated board), ``table`` (a replay)."""
