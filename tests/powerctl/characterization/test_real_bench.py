"""Real epochs. What is asserted of time are least durations: sleeps may last longer, never less."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import pytest

from powerctl.characterization.plan import Cell
from powerctl.characterization.real_bench import RealBench
from powerctl.characterization.tasks import images_task
from powerctl.errors import InvalidInput
from powerctl.task.loading import load_task
from tests.powerctl.task.conftest import TASKS

ALONE = Cell(workers=0, batch_size=8, storage="")
SLEEP = partial(time.sleep, 0.01)


def spin():
    until = time.thread_time() + 0.01
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize("load", [SLEEP, spin], ids=["slow disc", "slow decoding"])
def test_slow_loading_is_stall_and_not_compute(task, load):
    for epoch in RealBench(task(load=load), empty="keep").run(ALONE, 0, 2):
        assert epoch.stall_s >= 24 * 0.01
        assert epoch.compute_s <= epoch.seconds - 24 * 0.01


def test_a_slow_step_is_compute_and_not_stall(task):
    for epoch in RealBench(task(compute=SLEEP), empty="keep").run(ALONE, 0, 2):
        assert epoch.compute_s >= 3 * 0.01
        assert epoch.stall_s <= epoch.seconds - 3 * 0.01


def test_a_worker_loads_while_the_device_computes(task):
    slow = partial(time.sleep, 0.1)
    bench = RealBench(task(load=SLEEP, compute=slow), empty="keep")
    for epoch in bench.run(replace(ALONE, workers=1, prefetch=2), 0, 2):
        assert epoch.start_s >= 8 * 0.01  # the first minibatch is waited for
        assert epoch.stall_s <= epoch.seconds - 3 * 0.1  # the others are not


def test_every_sample_is_seen_in_every_epoch(task):
    bench = RealBench(task(count=21), samples=20, empty="keep")
    for kind in ("train", "infer"):
        for epoch in bench.run(replace(ALONE, kind=kind), 0, 3):
            assert (epoch.samples, epoch.minibatches) == (20, 3)
            assert 0 < epoch.stall_s + epoch.compute_s <= epoch.seconds


def test_the_cache_is_emptied_before_the_first_epoch_only(tmp_path):
    bench = RealBench(load_task(images_task(tmp_path, count=24)), empty="advise")
    packed = replace(ALONE, storage="packed", batch_size=16)
    bench.check(packed)
    first, later = bench.run(packed, 0, 2)
    if not first.read_bytes:
        pytest.skip(f"{tmp_path} is not on a disc whose reads the kernel accounts")
    assert later.read_bytes == 0


def test_this_machines_modes_are_not_set(task):
    with pytest.raises(InvalidInput, match="on a Jetson use --device jetson"):
        RealBench(task()).check(replace(ALONE, mode="MAXN"))
    with pytest.raises(InvalidInput, match="--device is here, jetson or twin:BOARD"):
        RealBench(task(), "there")


@pytest.mark.parametrize("name", ["quickstart", "stepwise"])
def test_a_task_of_the_users_is_studied_with_its_own_loop(name):
    bench = RealBench(load_task(str(TASKS / f"{name}.py")), empty="keep")
    for kind in ("train", "infer"):
        (epoch,) = bench.run(replace(ALONE, kind=kind), 0, 1)
        assert (epoch.samples, epoch.minibatches) == ((32, 4) if name == "quickstart" else (30, 4))


def test_a_task_that_cannot_be_varied_is_said():
    with pytest.raises(InvalidInput, match="returned a list: expected a DataLoader over"):
        lstm = load_task(str(TASKS / "lstm.py"), {"hidden-size": 4})
        RealBench(lstm).check(ALONE)
    with pytest.raises(InvalidInput, match="load_data takes no storage, and so cannot load from"):
        RealBench(load_task(str(TASKS / "quickstart.py"))).check(replace(ALONE, storage="packed"))
