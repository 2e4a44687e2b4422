"""Counts of a user's own step: the same as by hand, with what their loop does, and their loader."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.own_task import counted
from powerctl.errors import TaskFailed
from powerctl.pagoda.counted import CountedTask
from powerctl.pagoda.counting import count_model
from powerctl.pagoda.step_counting import count_step
from powerctl.task.loading import load_task
from tests.powerctl.task.conftest import TASKS

BATCH = 4
GIVEN = {"batch_size": BATCH, "lr": 0.1, "partition_id": 0, "num_partitions": 1}


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))


def load_data(batch_size):
    x, y = torch.randn(32, 3, 8, 8), torch.arange(32) % 5
    return [*zip(x.split(batch_size), y.split(batch_size), strict=True)]


def loop(net, trainloader, epochs, lr):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    seen = 0.0
    for _ in range(epochs):
        for x, y in trainloader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            seen += loss.item()
    return seen


def task_of(train=loop, **functions):
    """A task of functions; by default, that of a small net for images."""
    own = {"load_data": load_data, "make_model": Net, "train": train, "test": lambda net: 0.0}
    return load_task(SimpleNamespace(name="own", **{**own, **functions}))


def training(task):
    return count_step(task, "train", GIVEN)


def test_the_users_own_loop_counts_as_their_loss_and_optimizer_do():
    own = training(task_of())
    x, y = load_data(BATCH)[0]
    by_hand = count_model(
        Net(),
        x,
        training=True,
        loss=lambda scores: nn.functional.cross_entropy(scores, y),
        optimiser="sgd-momentum",
    )
    assert (own.counts.flop, own.counts.batch_size) == (by_hand.flop, BATCH)
    # beyond: `backward` makes the gradient of the loss, which count_model hands to it
    assert 0 <= own.counts.kernels - by_hand.kernels <= 1
    assert own.counts.dram_bytes == pytest.approx(by_hand.dram_bytes, rel=1e-3)
    assert own.parameters == sum(p.numel() for p in Net().parameters())
    assert not own.is_computed


def test_a_step_counts_as_the_loop_that_does_the_same():
    def step(model, batch, optimizer):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    stepwise = load_task(
        SimpleNamespace(
            name="own",
            load_data=load_data,
            make_model=Net,
            make_optimizer=lambda model, lr: torch.optim.SGD(model.parameters(), lr, momentum=0.9),
            train_step=step,
            test=lambda net: 0.0,
        )
    )
    assert training(stepwise).counts == training(task_of()).counts


def test_a_loop_that_decides_by_its_data_really_computes():
    def train(net, trainloader):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        right = 0
        for x, y in trainloader:
            scores = net(x)
            right += int((scores.argmax(1) == y).sum())
            nn.functional.cross_entropy(scores, y).backward()
            optimizer.step()

    assert training(task_of(train)).is_computed


def test_gradients_over_several_minibatches_count_as_their_mean():
    def every(n):
        def train(net, trainloader):
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            for i, (x, y) in enumerate(trainloader):
                nn.functional.cross_entropy(net(x), y).backward()
                if i % n == n - 1:
                    optimizer.step()

        return training(task_of(train)).counts

    one, four = every(1), every(4)
    assert four.layers[-1].kind == one.layers[-1].kind == "SGD"
    assert four.layers[-1].flop == pytest.approx(one.layers[-1].flop / 4, abs=1)
    assert four.flop < one.flop


def test_optimizers_count_as_on_a_gpu_in_few_kernels():
    def train(net, trainloader):
        optimizer = torch.optim.Adam(net.parameters())
        for x, y in trainloader:
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()

    def deep():
        return nn.Sequential(
            nn.Flatten(), *(nn.Linear(192, 192) for _ in range(9)), nn.Linear(192, 5)
        )

    found = (training(task_of(train, make_model=make)).counts for make in (Net, deep))
    small, large = (counts.layers[-1] for counts in found)
    assert small.kind == large.kind == "Adam"
    assert small.kernels == large.kernels < 20


@pytest.mark.parametrize("name", ["amp", "batchnorm", "detector", "lstm", "stream", "transformer"])
def test_what_tasks_use_is_known_through_and_through(name):
    counts = training(load_task(f"{TASKS / name}.py", {"hidden-size": 8})).counts
    assert counts.flop > 0 and counts.kernels > 5
    assert counts.unknown == ()


@pytest.mark.parametrize("name", ["quickstart", "lstm", "detector"])
def test_torchs_own_counter_sees_the_same_products_where_a_task_really_runs(name):
    row = counted(f"{TASKS / name}.py", {"hidden-size": 8}, None)
    of, seen = row["counted"], row["measured"]
    # ours count biases and the softmax of attention too
    assert 0 <= of["products_flop"] / seen["products_flop"] - 1 < 0.05
    assert seen["time_s"] > 0 and of["known_share"] == 1


def test_counting_leaves_no_trace():
    net = Net()
    random, mode = torch.get_rng_state(), torch.backends.mkldnn.enabled
    weights = copy.deepcopy(net.state_dict())
    training(task_of(make_model=lambda: net))
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.mkldnn.enabled == mode
    assert all(torch.equal(net.state_dict()[name], value) for name, value in weights.items())
    assert type(net(torch.zeros(1, 3, 8, 8))) is torch.Tensor


def test_a_loader_costs_the_time_of_a_core_that_it_takes_and_not_what_it_waits():
    def loading(work):
        def load(batch_size):
            return torch.utils.data.DataLoader(Worked(work), batch_size, num_workers=2)

        return training(task_of(load_data=load)).host_cycles_per_sample

    plain, waiting, working = (loading(w) for w in (lambda: None, sleeping, computing))
    assert waiting < working / 3
    assert plain < working / 3


class Worked(torch.utils.data.Dataset):
    def __init__(self, work) -> None:
        self.work = work

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i):
        self.work()
        return torch.zeros(3, 8, 8), i % 5


def sleeping() -> None:
    time.sleep(0.004)


def computing() -> None:
    until_s = time.thread_time() + 0.004
    while time.thread_time() < until_s:
        pass


def test_a_step_that_fails_says_what_the_users_code_raised():
    def train(net, trainloader):
        for x, _ in trainloader:
            net(x[:, :1])

    with pytest.raises(TaskFailed, match="train raised RuntimeError.*channels"):
        training(task_of(train))
    with pytest.raises(TaskFailed, match="returned a loader without minibatches"):
        training(task_of(load_data=lambda batch_size: []))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """The quickstart of the tests in a file of its own, which may be changed."""
    monkeypatch.setenv("POWERCTL_HOME", str(tmp_path / "home"))
    path = tmp_path / "my_task.py"
    path.write_text((TASKS / "quickstart.py").read_text())
    return path


def test_a_workload_is_named_by_task_code_and_batch_size_and_counted_once(written, monkeypatch):
    first = CountedTask(load_task(str(written))).workload(8)
    task, rest = first.name.split("@")
    code, size = rest.split("-")
    assert (task, size, len(code)) == ("my_task", "b8", 8)
    assert (first.kind, first.batch_size, first.parameters) == ("train", 8, 1562)
    assert first.source == "counted from my_task.py, not measured"
    monkeypatch.setattr(CountedTask, "step", None)  # to count again would fail
    assert CountedTask(load_task(str(written))).workload(8) == first
    with pytest.raises(TypeError):
        CountedTask(load_task(str(written))).workload(4)


def test_other_code_and_other_settings_are_other_workloads(written, tmp_path):
    other = tmp_path / "other" / "my_task.py"
    other.parent.mkdir()
    other.write_text(written.read_text() + "\n")
    tasks = [load_task(str(written)), load_task(str(other)), load_task(str(written), {"width": 3})]
    assert len({CountedTask(task).name(8) for task in tasks}) == 3
    assert all(Path(CountedTask(task).name(8)).name.startswith("my_task@") for task in tasks)
