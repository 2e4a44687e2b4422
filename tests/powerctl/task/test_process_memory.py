"""Where the facts of memory come from: this machine's, a fake Jetson's, and a count."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from powerctl.accelerator import Accelerator
from powerctl.errors import TaskFailed
from powerctl.task import process_memory as module
from powerctl.task.loading import raised_in
from powerctl.task.process_memory import ProcessMemory, counted_bytes, give_back, oom_kills, ran_out

MIB = 2**20
HERE = ProcessMemory(Accelerator())
GPU = ProcessMemory(Accelerator("cuda:0"))


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A kernel that says what is written into its files."""
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text(
        "MemTotal:  7000 kB\nMemFree:  100 kB\nMemAvailable:  3000 kB"
    )
    (tmp_path / "self/status").write_text("Name:\tpython\nVmHWM:\t    900 kB\nVmRSS:\t    500 kB\n")
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 4\n")
    monkeypatch.setattr(module, "_PROC", tmp_path)
    return tmp_path


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of which torch tells these figures; whether it is a Jetson's can be set."""
    properties = SimpleNamespace(is_integrated=1)
    for name, told in (
        ("get_device_properties", properties),
        ("mem_get_info", (11 * MIB, 80 * MIB)),
        ("memory_reserved", 2 * MIB),
        ("max_memory_reserved", 5 * MIB),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda device, told=told: told)
    return properties


def test_free_memory_of_a_cpu_is_what_linux_can_still_give(proc):
    assert HERE.free_bytes() == 3000 * 1024
    assert (HERE.held_bytes(), HERE.peak_bytes()) == (500 * 1024, 900 * 1024)


def test_on_a_jetson_the_memory_of_the_gpu_is_the_boards(proc, gpu):
    assert GPU.free_bytes() == 3000 * 1024
    assert GPU.held_bytes() == 500 * 1024 + 2 * MIB
    assert GPU.peak_bytes() == 900 * 1024 + 5 * MIB


def test_a_gpu_with_memory_of_its_own_tells_for_itself(proc, gpu):
    gpu.is_integrated = 0
    assert (GPU.free_bytes(), GPU.held_bytes(), GPU.peak_bytes()) == (11 * MIB, 2 * MIB, 5 * MIB)


V1 = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("", "memory.max", "memory.current", "inactive_file")


@pytest.mark.parametrize(
    ("line", "names"), [("0::/a/b", V2), ("4:cpu,memory:/a/b\n0::/", V1)], ids=["v2", "v1"]
)
@pytest.mark.parametrize(
    ("limits", "free_kib"),
    [
        ({}, 3000),
        ({"a": (2000, 700, 0)}, 1300),  # the outer one's
        ({"a/b": (1000, 700, 100), "a": (2000, 700, 0)}, 400),
        ({"a/b": (1000, 1010, 5), "": (9000, 10, 0)}, 0),
        ({"": (900, 100, 0)}, 800),  # a container's, which is told of a path outside it
        ({"a/b": ("max", 100, 0)}, 3000),
    ],
)
def test_a_container_has_no_more_than_the_tightest_group_it_is_in(
    proc, tmp_path, monkeypatch, line, names, limits, free_kib
):
    monkeypatch.setattr(module, "_CGROUPS", tmp_path / "cgroup")
    (proc / "self/cgroup").write_text(f"1:name=systemd:/a\n{line}\n")
    where, limit, taken, files = names
    for group, (most, now, cached) in limits.items():
        folder = tmp_path / "cgroup" / where / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text("max\n" if most == "max" else f"{most * 1024}\n")
        (folder / taken).write_text(f"{now * 1024}\n")
        (folder / "memory.stat").write_text(f"cache 7\n{files} {cached * 1024}\n")
    assert HERE.free_bytes() == free_kib * 1024


def test_what_is_lacking_is_said_with_what_is_free(proc):
    assert HERE.lack(3000 * 1024) == ""
    (proc / "meminfo").write_text(f"MemAvailable: {700 * 1024} kB")
    assert HERE.lack(1.9 * 2**30) == "needs about 1.90 GiB, 0.68 GiB is free"


def test_a_peak_is_of_what_was_taken_since_it_was_forgotten():
    HERE.forget_peak()
    before = HERE.held_bytes()
    taken = np.ones(256 * MIB, dtype=np.uint8)
    assert HERE.held_bytes() > before + 200 * MIB
    del taken
    assert HERE.peak_bytes() > before + 200 * MIB > HERE.held_bytes()
    HERE.forget_peak()
    assert HERE.peak_bytes() < before + 200 * MIB


def test_the_kernels_kills_are_counted_where_it_tells(proc):
    assert oom_kills() == 4
    (proc / "vmstat").write_text("nr_free_pages 1\n")
    assert oom_kills() == -1


@pytest.mark.parametrize(
    "fail",
    [
        lambda: torch.empty(2**58),
        lambda: np.ones(2**58),
        lambda: nn.Linear(2**29, 2**29),
    ],
)
def test_a_real_want_of_memory_is_known_also_when_a_users_code_is_blamed(fail):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        fail()
    assert ran_out(caught.value)
    with pytest.raises(TaskFailed) as told, raised_in("my_task.py: train"):
        fail()
    assert ran_out(told.value)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "CUDACachingAllocator"'), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (TaskFailed("my_task.py: train raised ValueError: out of memory"), False),
    ],
)
def test_the_words_of_a_gpu_without_memory_are_known(error, is_one):
    assert ran_out(error) is is_one


class Convolutions(nn.Module):
    """Mostly activations."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(c, 32, 3, padding=1), nn.ReLU()) for c in (3, *[32] * 5)),
            nn.BatchNorm2d(32),
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


class Wide(nn.Sequential):
    """Mostly parameters."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3 * 64 * 64, 2048), nn.ReLU(), nn.Linear(2048, 10))


@pytest.mark.studies
@pytest.mark.parametrize("kind", [Convolutions, Wide])
def test_the_count_errs_upwards_but_not_by_much(kind):
    def step(n):
        model = kind()
        inputs, labels = torch.randn(n, 3, 64, 64), torch.zeros(n, dtype=torch.int64)
        HERE.forget_peak()
        before = HERE.held_bytes()
        counted = counted_bytes(model, (inputs, labels))
        counting = HERE.peak_bytes() - before
        optimizer = torch.optim.Adam(model.parameters())
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        return counted, counting, HERE.peak_bytes() - before

    step(2)  # what torch loads first
    counted, counting, taken = step(64)
    assert taken < counted < 4 * taken
    assert counting < 0.1 * taken  # nothing was computed


def test_a_count_changes_no_model_and_takes_a_batch_as_loaders_give_it():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.lstm, self.seen = nn.BatchNorm1d(4), nn.LSTM(4, 4), None

        def forward(self, pixels, scale):
            self.seen = self.lstm(self.norm(pixels))[0]
            return self.seen * scale

    model = Named()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = {"labels": torch.zeros(8), "scale": torch.ones(8, 4), "pixels": torch.randn(8, 4)}
    assert counted_bytes(model, batch) > 2 * 2 * 8 * 4 * 4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.seen is None


def test_what_needs_its_data_is_not_counted():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    assert counted_bytes(Branching(), [torch.ones(4)]) == 0
    assert counted_bytes(nn.Linear(2, 2), None) == 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_without_memory_is_known_and_what_was_taken_is_given_back():
    gpu = ProcessMemory(Accelerator.of("cuda"))
    torch.ones(1, device="cuda")
    gpu.forget_peak()
    before, free = gpu.held_bytes(), gpu.free_bytes()

    def fail():
        first = torch.empty(free // 2, dtype=torch.uint8, device="cuda")
        return first, torch.empty(free, dtype=torch.uint8, device="cuda")

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert ran_out(caught.value)
    assert gpu.peak_bytes() - before >= free // 2
    del caught
    give_back()
    assert gpu.held_bytes() <= before
