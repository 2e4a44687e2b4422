"""A module of the app that has the name of one of wattfed's."""

from __future__ import annotations

GATE = "the app's own gate"
