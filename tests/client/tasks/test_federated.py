"""A task as a federation has it: whose data is loaded when, with what, and how long it stays."""

from __future__ import annotations

import itertools
import os
import textwrap

import numpy as np
import pytest
import torch

from powerctl.errors import TaskFailed, UnknownName
from powerctl.task.loading import load_task
from wattfed.client.tasks import federated as module
from wattfed.client.tasks.federated import federated
from wattfed.strategies.run_config import RunConfig

TASK = """
    import numpy as np
    import torch
    from torch import nn

    loaded = []

    def make_model(seed, model_name="small"):
        return nn.Linear(2, {"small": 2, "large": 9}[model_name])

    def load_data(partition_id, batch_size, path="nowhere", megabytes=0):
        loaded.append((partition_id, path))
        weight = np.ones(megabytes * 2**17)
        return [(torch.randn(batch_size, 2), weight)] * 3

    def train(net, trainloader):
        for batch in trainloader:
            pass

    def test(net, testloader):
        return 0.0
"""


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A run's task of the file above, with more text; settings by name."""
    monkeypatch.chdir(tmp_path)

    def make(more="", node=(), **settings):
        (tmp_path / "my_task.py").write_text(textwrap.dedent(TASK) + textwrap.dedent(more))
        named = {key.replace("_", "-"): value for key, value in settings.items()}
        return federated(RunConfig().changed(task="my_task.py", settings=named), 4, node)

    return make


def loaded():
    return load_task("my_task.py").own.loaded


def inputs(task, client):
    return next(iter(task._loaders(client, 9).train))[0]


def test_a_client_is_loaded_once_where_its_size_is_asked_for_and_then_trained(task):
    made = task()
    assert made.sizes(np.array([4, 7]), 9)[1].tolist() == [3, 3]
    made.training(made.model(), 4, 9, minibatches=1, seed=0).close()
    assert [client for client, _ in loaded()] == [4, 7]


def test_nothing_is_loaded_where_sizes_and_labels_are_told(task):
    made = task(
        "def num_examples(partition_id):\n    return 10 * partition_id\n"
        "def label_counts(partition_id):\n    return [partition_id, 1]\n"
    )
    assert made.sizes(np.arange(3), 9) == pytest.approx(np.array([[0, 10, 20], [0, 3, 5]]))
    assert made.label_counts(np.arange(2), 9).tolist() == [[0, 1], [1, 1]]
    assert not made.has_central_data and not loaded()


def test_what_loading_draws_is_of_run_and_client(task):
    torch.manual_seed(1)
    first = [inputs(task(), client) for client in (0, 1)]
    module._federated.cache_clear(), module._of_run.cache_clear()
    torch.manual_seed(2)
    again = [inputs(task(), client) for client in (1, 0)]
    assert torch.equal(first[0], again[1]) and torch.equal(first[1], again[0])
    assert not torch.equal(first[0], first[1])


def test_clients_of_much_data_make_room_for_each_other(task, monkeypatch):
    monkeypatch.setattr(module, "_KEPT_BYTES", 50 * 2**20)
    in_use = itertools.count(0, 20 * 2**20)  # each loading takes 20 MiB: a real process reuses some
    monkeypatch.setattr(module, "_resident_bytes", lambda: next(in_use))
    made = task()
    made.sizes(np.arange(6), 9)
    assert len(made._kept) == 2
    assert (5, 9) in made._kept and (0, 9) not in made._kept
    monkeypatch.setattr(module, "_resident_bytes", lambda: 0)
    small = task(model_name="large")
    small.sizes(np.arange(30), 99)
    assert len(small._kept) == 30


def test_keys_of_the_run_and_of_the_node_reach_the_functions(task):
    made = task(node=(("dataset-path", "/data"), ("partition-id", 3), ("other", 1)))
    inputs(made, 3)
    assert loaded() == [(3, "/data")]
    assert task(model_name="large").model().out_features == 9
    with pytest.raises(UnknownName, match="run-config key 'modle-name': did you mean 'model-name'"):
        task(modle_name="large")


def test_a_function_that_asks_for_what_nothing_gives_is_told_before_anything_runs(task):
    with pytest.raises(TaskFailed, match="my_task.py: num_examples needs 'flavour', which"):
        task("def num_examples(flavour):\n    return 1\n").check_arguments()
    assert not loaded()


def test_a_path_is_of_the_folder_in_which_it_is_written(task, tmp_path, monkeypatch):
    here = task().model().out_features
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    text = textwrap.dedent(TASK).replace('"small": 2', '"small": 5')
    (tmp_path / "b" / "my_task.py").write_text(text)
    there = federated(RunConfig(task="my_task.py"), 4).model().out_features
    assert (here, there) == (2, 5) and os.getcwd() == str(tmp_path / "b")


def test_the_noop_task_has_samples_for_pools_of_any_size():
    task, n = federated(RunConfig(task="noop"), 16), 200_000
    everyone, some = np.arange(n), np.array([0, 8192, 199_999])
    examples, minibatches = task.sizes(everyone, n)
    assert len(examples) == n and examples.min() >= 1
    counts = task.label_counts(everyone, n)
    np.testing.assert_array_equal(counts.sum(axis=1), examples)
    np.testing.assert_array_equal(task.label_counts(some, n), counts[some])
    sizes = [task.evaluation_size(client, n)[1] for client in some.tolist()]
    assert sizes == (10 * minibatches[some]).tolist()  # a `test` may pass over them ten times
