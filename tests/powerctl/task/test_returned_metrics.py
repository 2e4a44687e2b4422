from __future__ import annotations

import types

import numpy as np
import pytest
import torch

from powerctl.errors import TaskFailed
from powerctl.task.loading import load_task
from powerctl.task.returned_metrics import metrics_of, target_of


@pytest.fixture
def task():
    module = types.ModuleType("made")
    vars(module).update(load_data=list, make_model=dict, train=lambda net: 0)
    module.test = lambda net: None

    def make(target=None):
        module.target = target
        return load_task(module)

    return make


@pytest.mark.parametrize(
    ("returned", "metrics"),
    [
        ({"mAP": 0.5, "n": 3}, {"mAP": 0.5, "n": 3.0}),
        ({"a": np.float32(0.5), "b": np.ones(1), "c": np.int64(2)}, {"a": 0.5, "b": 1.0, "c": 2.0}),
        ({"a": torch.tensor(0.5, requires_grad=True)}, {"a": 0.5}),
        ((1.5, 0.25), {"loss": 1.5, "accuracy": 0.25}),
        (2, {"loss": 2.0}),
        ([{"test_loss": 0.5}], {"test_loss": 0.5}),
    ],
)
def test_numbers_of_any_kind_are_taken(task, returned, metrics):
    assert metrics_of(task(), returned) == metrics


def test_a_single_number_is_the_target_where_one_is_named(task):
    assert metrics_of(task(("mAP", "max")), 0.5) == {"mAP": 0.5}


@pytest.mark.parametrize(
    "returned",
    [None, "good", {}, {"accuracy": None}, {"accuracy": "0.5"}, {3: 0.5}, (1, 2, 3), [1, 2],
     {"a": np.ones(2)}, {"a": torch.ones(2, 2)}, {"a": 1j}],
)  # fmt: skip
def test_what_is_no_metric_is_said(task, returned):
    with pytest.raises(TaskFailed, match="made: <lambda> returned"):
        metrics_of(task(), returned)


def test_the_target_is_the_tasks_own_else_accuracy_else_the_loss(task):
    assert target_of(task(("mAP", "max")), {"loss": 1, "mAP": 2}) == ("mAP", "max")
    assert target_of(task(), {"loss": 1, "accuracy": 2}) == ("accuracy", "max")
    assert target_of(task(), {"eval_loss": 1, "eval_acc": 2}) == ("eval_acc", "max")
    assert target_of(task(), {"f1": 1, "test_loss": 2}) == ("test_loss", "min")


def test_a_target_that_is_not_there_is_said(task):
    with pytest.raises(TaskFailed, match="returned loss, without the target 'mAP'"):
        target_of(task(("mAP", "max")), {"loss": 1.0})
    with pytest.raises(TaskFailed, match=r'say which counts, as target = \("f1", "max"\)'):
        target_of(task(), {"f1": 1.0})


def test_a_metric_that_is_not_finite_is_kept(task):
    metrics = metrics_of(task(), {"loss": float("nan"), "accuracy": 1})
    assert str(metrics) == "{'loss': nan, 'accuracy': 1.0}"
