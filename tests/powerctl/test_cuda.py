"""What was launched on a GPU and still runs belongs to the minibatch that launched it."""

from __future__ import annotations

import time

import pytest
import torch

from powerctl.boards import load_board
from powerctl.devices.host import HostDevice
from powerctl.jetson.running import RealRunning
from powerctl.workload import load_workload

JOB = load_workload("mobilenetv3-train")


@pytest.fixture(params=["jetson", "host"])
def runs(request):
    if request.param == "host":
        yield HostDevice(load_board("orin-nano"))
        return
    running = RealRunning(lambda: 10.0)
    yield running
    running.close()


def test_a_minibatch_ends_when_the_gpu_has_done_what_it_launched(runs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: time.sleep(0.05))
    assert runs.execute(JOB, lambda: None) >= 0.05


def test_without_a_gpu_nothing_is_waited_for(runs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", None)
    runs.execute(JOB, lambda: None)
