from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch

from benchmarks.own_task import usual_settings
from powerctl.task.data import load_data
from powerctl.task.loading import load_task
from powerctl.task.randomness import Randomness
from powerctl.task.training import Training, make_model

TASKS = Path(__file__).parent / "tasks"
GIVEN = {
    "device": torch.device("cpu"),
    "partition_id": 0,
    "num_partitions": 2,
    "batch_size": 8,
    "lr": 0.01,
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def settings(tmp_path_factory):
    return usual_settings(tmp_path_factory.mktemp("files"))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a task into a file; the name of the file."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="my_task.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return name

    return write


@pytest.fixture
def trained():
    """Make the training of a task; more of what a run gives, and how it is trained, by name."""

    def make(task, minibatches=8, seed=7, given=None, **how):
        given = GIVEN | (given or {})
        with Randomness(1):
            model = make_model(task, given)
            loaders = load_data(task, given)
        return model, Training(
            task, model, loaders, given, minibatches=minibatches, seed=seed, **how
        )

    return make


@pytest.fixture
def fixture_task(settings):
    return lambda name: load_task(str(TASKS / f"{name}.py"), settings)


def run(training, minibatches):
    """Take so many steps, and end."""
    with training:
        for _, step in zip(range(minibatches), training.steps(), strict=False):
            step()
    return training
