from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from powerctl.errors import TaskFailed
from powerctl.task.data import (
    central_data,
    examples_of,
    label_counts,
    load_data,
    minibatches_of,
    num_examples,
)
from powerctl.task.loading import load_task

LOADER, OTHER, THIRD = ([torch.ones(2)] * n for n in (3, 2, 1))
DATA = TensorDataset(torch.arange(10.0), torch.arange(10))


def returning(value, **more):
    module = types.ModuleType("made")
    functions = {"load_data": lambda: value, "make_model": dict, "train": lambda net: None}
    vars(module).update(functions | {"test": lambda net: None} | more)
    return load_task(module)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (LOADER, (LOADER, None, None)),
        ((LOADER,), (LOADER, None, None)),
        ((LOADER, None), (LOADER, None, None)),
        ((LOADER, OTHER), (LOADER, OTHER, OTHER)),
        ((LOADER, OTHER, THIRD), (LOADER, OTHER, THIRD)),
        ({"trainloader": LOADER, "test": THIRD}, (LOADER, None, THIRD)),
        ({"train": LOADER, "val": OTHER}, (LOADER, OTHER, OTHER)),
    ],
)
def test_one_loader_or_several_are_taken(value, parts):
    loaders = load_data(returning(value), {})
    assert [loaders.train, loaders.validation, loaders.test] == list(parts)


def test_a_data_set_of_torch_is_put_into_a_loader():
    loaders = load_data(returning((DATA, DATA)), {"batch_size": 4})
    assert (minibatches_of(loaders.train), examples_of(loaders.train)) == (3, 10)
    assert next(iter(loaders.test))[1].tolist() == [0, 1, 2, 3]
    assert (
        minibatches_of(load_data(returning(TensorDataset(DATA[:0][0])), {"batch_size": 4}).train)
        == 0
    )
    with pytest.raises(TaskFailed, match="made: <lambda> returned a data set; return a DataLoader"):
        load_data(returning(DATA), {})


def test_a_stream_tells_no_number():
    stream = (batch for batch in LOADER)
    loader = load_data(returning(stream), {}).train
    assert (minibatches_of(loader), examples_of(loader)) == (None, None)
    assert examples_of(DataLoader(DATA)) == 10


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "returned a NoneType to train with, expected a loader"),
        (3, "returned a int to train with"),
        ("train", "returned a str to train with"),
        (torch.ones(3, 4), "returned a Tensor to train with"),
        ((LOADER, np.ones(3)), "returned a ndarray to validation with"),
        ((LOADER, OTHER, {"trainset": 3}), "returned a dict to test with"),
        ((LOADER,) * 4, "returned 4 things, expected up to 3 loaders"),
        ({"training": LOADER}, "returned a mapping of training, without 'train'"),
    ],
)
def test_what_is_no_loader_is_said(value, message):
    with pytest.raises(TaskFailed, match=message):
        load_data(returning(value), {})


def test_facts_on_a_client_are_optional_and_load_nothing():
    task = returning(
        None,
        num_examples=lambda partition_id: np.int64(7 * partition_id),
        label_counts=lambda partition_id: {0: 3, "2": partition_id},
        central_data=lambda batch_size: OTHER,
    )
    assert num_examples(task, {"partition_id": 2}) == 14
    assert label_counts(task, {"partition_id": 2}).tolist() == [3, 0, 2]
    assert central_data(task, {"batch_size": 1}) is OTHER
    bare = returning(LOADER)
    assert num_examples(bare, {}) is label_counts(bare, {}) is central_data(bare, {}) is None


@pytest.mark.parametrize("value", [-1, 2.5, "many", None])
def test_what_is_no_number_of_examples_is_said(value):
    with pytest.raises(TaskFailed, match="expected a count"):
        num_examples(returning(LOADER, num_examples=lambda: value), {})


@pytest.mark.parametrize("value", [3, [-1], [0.5], [[1]], {"cat": 2}, {-1: 2}, [np.nan], None])
def test_what_is_no_count_of_labels_is_said(value):
    with pytest.raises(TaskFailed, match="expected a count for each label"):
        label_counts(returning(LOADER, label_counts=lambda: value), {})
