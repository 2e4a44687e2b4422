"""A module of the app that has the name of one of wattfed's."""

from __future__ import annotations

OPTIONS = {"strategy": "all", "rounds": 1, "per_round": 2, "local_epochs": 1}
