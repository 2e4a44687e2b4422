"""Where models live, and what was launched on a GPU and still runs."""

from __future__ import annotations

import time
from collections import namedtuple

import pytest
import torch

from powerctl import accelerator
from powerctl.accelerator import CHOICE, Accelerator
from powerctl.boards import load_board
from powerctl.devices.host import HostDevice
from powerctl.devices.jetson import Jetson
from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.fakes.layout import FAKE_MARKER
from powerctl.fakes.making import make_fake_board
from powerctl.workload import load_workload

JOB = load_workload("mobilenetv3-train")


@pytest.fixture(params=["jetson", "host"])
def runs(request, tmp_path):
    if request.param == "host":
        yield HostDevice(load_board("orin-nano"))
        return
    root = make_fake_board("orin-nano", "6", tmp_path / "board").root
    (root / FAKE_MARKER).unlink()  # plain files, as on a Jetson: real time
    with Jetson(root) as device:
        yield device


def test_a_minibatch_ends_when_the_gpu_has_done_what_it_launched(runs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: time.sleep(0.05))
    assert runs.execute(JOB, lambda: None) >= 0.05


def test_without_a_gpu_nothing_is_waited_for(runs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", None)
    runs.execute(JOB, lambda: None)


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs torch finds."""

    def found(number):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        accelerator.n_gpus.cache_clear()  # a process counts them once

    yield found
    accelerator.n_gpus.cache_clear()


@pytest.mark.parametrize(("text", "error"), [("tpu", InvalidInput), ("cuda", DeviceUnavailable)])
def test_what_the_environment_says_wrongly_is_told_with_its_name(text, error, gpus, monkeypatch):
    gpus(0)
    monkeypatch.setenv(CHOICE, text)
    with pytest.raises(error, match=f"^{CHOICE}: accelerator '?{text}'?: "):
        Accelerator.here()


@pytest.mark.parametrize(
    ("number", "text", "name"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (2, "auto", "cuda:0"),
        (2, "cuda", "cuda:0"),
        (2, "cuda:1", "cuda:1"),
        (2, "cpu", "cpu"),
    ],
)
def test_a_gpu_is_used_where_there_is_one(gpus, number, text, name):
    gpus(number)
    assert Accelerator.of(text).name == name


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "meta"])
def test_what_names_no_accelerator_is_refused(text):
    with pytest.raises(InvalidInput, match="expected auto, cpu, cuda or cuda:N"):
        Accelerator.of(text)


def test_a_gpu_that_is_not_there_is_an_error(gpus):
    gpus(0)
    with pytest.raises(DeviceUnavailable, match="finds no GPU"):
        Accelerator.of("cuda")
    gpus(1)
    with pytest.raises(DeviceUnavailable, match="this machine has 1"):
        Accelerator.of("cuda:1")


def test_models_and_all_tensors_of_a_batch_are_moved():
    pair, there = namedtuple("pair", "x y"), Accelerator("meta")
    model = torch.nn.BatchNorm1d(2)
    assert {t.device.type for t in there.place(model).state_dict().values()} == {"meta"}
    x = torch.zeros(2)
    batch = there.move({"a": [x, (x, "text")], "b": pair(x, 3)})
    assert batch["a"][1][1] == "text" and batch["b"].y == 3
    moved = [batch["a"][0], batch["a"][1][0], batch["b"].x]
    assert {tensor.device.type for tensor in moved} == {"meta"}
