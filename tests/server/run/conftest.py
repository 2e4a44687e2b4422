"""A short run of no work, and evaluations that give what a test wants."""

from __future__ import annotations

import pytest

from wattfed.client.tasks.federated import FederatedTask
from wattfed.strategies.run_config import RunConfig


@pytest.fixture
def config(tmp_path):
    return RunConfig(
        task="noop", out_dir=str(tmp_path), name="run", rounds=3, per_round=2, strategy="random",
        local_epochs=1, workers=1,
    )  # fmt: skip


@pytest.fixture
def evaluates(monkeypatch):
    """Makes the evaluations of a run give some metrics, one after the other; none when over."""

    def give(*metrics):
        left = iter(metrics)
        monkeypatch.setattr(FederatedTask, "evaluate", lambda self, model: dict(next(left, {})))

    return give
