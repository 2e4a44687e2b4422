"""Durations are told by clocks that nobody sets; the time of day is for stamps alone."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.test_imports import MODULES, ROOT

STAMPS = {
    "powerctl/jetson/journal.py": "when what was damaged was kept aside",
    "powerctl/profiler/profile_log.py": "when a measurement was made",
    "client/agent/idle_learning.py": "when a mode was measured in idle time",
    "client/worker/cost_models.py": "when a round measured a mode",
    "server/run/results.py": "when a run began",
    "server/run/tracking.py": "when a round ended, for a tracker",
    "server/live/snapshot.py": "how long ago a file was written",
    "server/deploy/keys.py": "from when, and until when, a certificate holds",
}
TIME_OF_DAY = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today"}


def tells_the_time_of_day(path: Path) -> bool:
    text = path.read_text()
    if not any(name.rpartition(".")[2] in text for name in TIME_OF_DAY):
        return False
    tree = ast.parse(text)
    calls = (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
    imported = (
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )
    return any(name.endswith(tuple(TIME_OF_DAY)) for name in (*calls, *imported))


def test_only_stamps_are_taken_from_the_time_of_day():
    found = {str(path.relative_to(ROOT)) for path in MODULES if tells_the_time_of_day(path)}
    assert found == set(STAMPS)
