"""Which of a fleet's joules count: what its operator pays for."""

from __future__ import annotations

TRAINING, CHARGED, ALWAYS_ON = ACCOUNTINGS = ("training", "charged", "always-on")
"""Training and transfers alone; all that a round's participants take until it ends, waiting,
carrier boards and supplies included; and besides the boards that are on without taking part."""
