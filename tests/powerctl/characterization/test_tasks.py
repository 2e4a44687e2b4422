from __future__ import annotations

import pytest
import torch

from powerctl.characterization.tasks import load_study_task
from powerctl.errors import InvalidInput, PowerctlError, TaskFailed, UnknownName
from powerctl.task.data import load_data
from powerctl.task.training import make_model

MODULE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))

def data():
    return TensorDataset(torch.zeros(6, 3, 8, 8), torch.zeros(6, dtype=torch.int64))

def on_disc(storage):
    return data() if storage == "mine" else 1

def wrong():
    return 7

def broken():
    raise RuntimeError("no weights")

class Mine:
    storages = ("mine",)
    def load_data(self, storage, width): return [storage, width]
    def make_model(self): return net()
    def train(self, net, loader): ...
    def test(self, net): ...
"""
GIVEN = {"batch_size": 4, "device": torch.device("cpu")}


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "own_task.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def learnt(task, storage):
    """Train on a minibatch and infer one; the model."""
    given = GIVEN | {"storage": storage}
    loaders, model = load_data(task, given), make_model(task, given)
    given |= {"model": model, "batch": next(iter(loaders.train)), "testloader": loaders.test}
    given["optimizer"] = task.call("make_optimizer", given)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    task.call("train_step", given)
    assert not torch.equal(before, torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert task.call("test", given) == len(loaders.test)
    return model


@pytest.mark.studies
@pytest.mark.parametrize("name", ["digits", "images"])
def test_built_in_tasks_are_learnt_from_disc(tmp_path, name):
    task = load_study_task(name, tmp_path, count=3)
    for storage in task.own.storages:
        learnt(task, storage)


def test_an_own_model_runs_on_pictures_of_its_shape(tmp_path):
    task = load_study_task(None, tmp_path, model="own_task:net", shape=(3, 8, 8), count=12)
    assert learnt(task, "files")[1].out_features == 2  # of ten classes that there are


def test_own_data_are_taken_by_storage_or_without(tmp_path):
    own = {"model": "own_task:net", "shape": (3, 8, 8)}
    learnt(load_study_task(None, tmp_path, dataset="own_task:data", **own), "")
    by_storage = load_study_task(None, tmp_path, dataset="own_task:on_disc", **own)
    learnt(by_storage, "mine")
    with pytest.raises(InvalidInput, match="no map-style data"):
        load_data(by_storage, GIVEN | {"storage": "other"})


def test_a_task_of_the_users_has_settings_and_storages(tmp_path):
    task = load_study_task("own_task:Mine", tmp_path, settings={"width": 3})
    assert task.own.storages == ("mine",)
    assert task.call("load_data", {"storage": "mine"}) == ["mine", 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "own_task:wrong"}, "own_task:wrong has no function make_model"),
        ({"task": "own_task:none"}, "has no attribute 'none'"),
        ({"task": "no_such_module:make"}, "there is no module no_such_module"),
        ({"task": "own_task:Mine", "model": "own_task:net"}, "--model, --dataset and --input are"),
        ({"task": None, "settings": {"a": 1}}, "--set is for a task of your own; images is built"),
        ({"task": None, "shape": (2, 8, 8)}, "1 or 3 channels"),
    ],
)
def test_what_is_no_task_is_said(tmp_path, options, message):
    with pytest.raises(PowerctlError, match=message):
        load_study_task(folder=tmp_path, **options)


@pytest.mark.parametrize(
    ("model", "message"),
    [("own_task:wrong", "returned a int, expected a torch.nn.Module"),
     ("own_task:broken", "RuntimeError: no weights")],
)  # fmt: skip
def test_a_model_that_is_none_is_said(tmp_path, model, message):
    with pytest.raises(InvalidInput, match=message):
        make_model(load_study_task(None, tmp_path, model=model), GIVEN)


def test_an_unknown_task_is_said(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        load_study_task("digit", tmp_path)
    with pytest.raises(TaskFailed, match="nowhere.py: no such file"):
        load_study_task("nowhere.py", tmp_path)
