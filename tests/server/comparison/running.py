"""Runs a comparison in this process, for tests."""

from __future__ import annotations

from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.running import run_comparison


def run(path, comparison, jobs=1):
    """The folder, and the names of the runs that really ran."""
    folder, ran = ComparisonFolder(path), []
    run_comparison(
        folder, comparison, jobs, lambda *_: None, lambda done: ran.append(done.config.run_name)
    )
    return folder, ran
