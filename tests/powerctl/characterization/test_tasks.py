from __future__ import annotations

import pytest
import torch

from powerctl.characterization.tasks import load_task
from powerctl.errors import InvalidInput, UnknownName

MODULE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from powerctl.characterization.tasks import Task

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))

def data():
    return TensorDataset(torch.zeros(6, 3, 8, 8), torch.zeros(6, dtype=torch.int64))

def on_disc(storage):
    return data() if storage == "mine" else 1

def task(folder):
    return Task("mine", net, lambda storage: data(), ("mine",))

class Federated:
    name = "federated"
    def model(self):
        return net()
    def train_samples(self):
        class Samples:
            inputs, labels = torch.arange(12.0).reshape(2, 6), torch.tensor([3, 4])
        return Samples

def wrong():
    return 7

def broken():
    raise RuntimeError("no weights")
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "own_task.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("name", ["digits", "images"])
def test_built_in_tasks_are_learnt_from_disc(tmp_path, name):
    task = load_task(name, tmp_path, count=3)
    for storage in task.storages:
        inputs, target = task.make_dataset(storage)[0]
        task.loss(task.make_model()(torch.tensor(inputs)[None]), torch.tensor([target])).backward()


def test_an_own_model_runs_on_pictures_of_its_shape(tmp_path):
    task = load_task(None, tmp_path, model="own_task:net", shape=(3, 8, 8), count=3)
    inputs, target = task.make_dataset("files")[2]
    assert task.make_model()(torch.tensor(inputs)[None]).shape == (1, 2)
    task.loss(torch.zeros(1, 2), torch.tensor([target + 5]))  # a class that the model lacks


def test_an_own_task_data_set_or_federated_task_is_taken(tmp_path):
    assert len(load_task("own_task:task", tmp_path).make_dataset("mine")) == 6
    assert len(load_task(None, tmp_path, dataset="own_task:data").make_dataset("")) == 6
    by_storage = load_task(None, tmp_path, dataset="own_task:on_disc")
    assert len(by_storage.make_dataset("mine")) == 6
    with pytest.raises(InvalidInput, match="no map-style data"):
        by_storage.make_dataset("other")
    stored = load_task("own_task:Federated", tmp_path).make_dataset("packed")
    assert (stored[1][0].tolist(), stored[1][1]) == ([6, 7, 8, 9, 10, 11], 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "own_task:wrong"}, "gave a int: neither"),
        ({"task": "own_task:broken"}, "RuntimeError: no weights"),
        ({"task": "own_task:none"}, "has no attribute 'none'"),
        ({"task": "no_such_module:make"}, "there is no module no_such_module"),
        ({"task": None, "shape": (2, 8, 8)}, "1 or 3 channels"),
    ],
)
def test_what_is_no_task_is_said(tmp_path, options, message):
    with pytest.raises(InvalidInput, match=message):
        load_task(folder=tmp_path, **options)


def test_an_unknown_task_is_said(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        load_task("digit", tmp_path)
    with pytest.raises(InvalidInput, match="not a torch.nn.Module"):
        load_task(None, tmp_path, model="own_task:wrong").make_model()
