"""What works beside is ready before it is measured, and ends with the block, come what may."""

from __future__ import annotations

import queue
import time

import pytest

from benchmarks import sharing
from benchmarks.sharing import Request, Worker, batches
from powerctl.errors import DeviceUnavailable


def count(control):
    control.ready.set()
    while not control.stop.wait(0.001):
        control.done.value += 1


def hang(control):
    control.ready.set()
    time.sleep(600)


def never_ready(control):
    control.stop.wait()


def end(control):
    control.ready.set()


def leave(control):
    """Ends before it is ready."""


@pytest.mark.processes
@pytest.mark.parametrize("own_process", [False, True])
def test_a_worker_counts_until_the_block_ends(own_process):
    with Worker(count, own_process=own_process) as worker:
        before = worker.done
        while worker.done == before:
            time.sleep(0.01)
    after = worker.done
    time.sleep(0.05)
    assert worker.done == after > before


@pytest.mark.processes
def test_a_process_that_hangs_is_killed_and_its_row_is_lost(monkeypatch):
    monkeypatch.setattr(sharing, "_END_S", 0.2)
    with pytest.raises(DeviceUnavailable, match="has failed"), Worker(hang, own_process=True):
        pass


def test_what_is_not_ready_in_time_or_ends_before_is_an_error():
    with pytest.raises(DeviceUnavailable, match=r"not ready within 0 s"):
        Worker(never_ready, own_process=False, limit_s=0.1).__enter__()
    with pytest.raises(DeviceUnavailable, match="has failed"):
        Worker(leave, own_process=False).__enter__()


def test_what_ends_before_it_is_told_to_is_an_error_unless_there_is_one_already():
    with pytest.raises(DeviceUnavailable, match="has failed"), Worker(end, own_process=False) as w:
        w._runner.join()
    with pytest.raises(KeyError), Worker(end, own_process=False):
        raise KeyError


def test_what_waits_is_one_batch_and_a_batch_goes_when_its_first_has_waited_long_enough():
    waiting = queue.Queue()
    requests = [Request(time.perf_counter() - 1) for _ in range(5)]
    for request in (*requests, None):
        waiting.put(request)
    assert [len(batch) for batch in batches(waiting, 4, patience_s=0.5)] == [4, 1]
    waiting.put(Request(time.perf_counter()))
    begun_s, found = time.perf_counter(), next(batches(waiting, 4, patience_s=0.1))
    assert len(found) == 1 and time.perf_counter() - begun_s >= 0.09
