"""The shared tables, small real tables, a command line, and a deterministic hypothesis.

A shell that starts the suite in the background has it ignore SIGINT, nohup SIGHUP; programs that
tests start and stop by a signal would inherit that.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small models are slower in several; read by torch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from powerctl import boards
from powerctl.accelerator import Accelerator
from powerctl.boards import load_board
from powerctl.cost_model import minibatch_cost
from powerctl.measurement import MeasurementTable
from powerctl.workload import load_workload
from tests import warm
from tests.fake_accelerator import FakeAccelerator

for number, action in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, action)

settings.register_profile(
    "wattfed",
    derandomize=True,
    deadline=None,
    max_examples=50,
    # a busy machine is slow; and what a fixture gives here, an example leaves as it was
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("quick", settings.get_profile("wattfed"), max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "wattfed"))
# examples do not draw on constants of the modules that earlier tests happen to have loaded
providers.is_local_module_file = lambda path: False

warm.take_over_spawning()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long files first, so that no worker idles in the end; skip what needs a GPU and has none.

    The files with tests that start programs are the long ones.
    """
    long = {item.path for item in items if item.get_closest_marker("processes")}
    items.sort(key=lambda item: item.path not in long)
    without = pytest.mark.skip(reason="torch finds no GPU here")
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(without)


def pytest_collection_finish() -> None:
    """Have no garbage collection look again at what is loaded by now, for half a second each."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """No test sees, or adds to, a person's own references and counted tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POWERCTL_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def found_boards():
    """No test knows a board that another has found."""
    yield
    boards._FOUND.clear()


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_table():
    """Read one of the shared measured tables, or skip."""

    def read(name: str) -> MeasurementTable:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"no measured table {name} here")
        return MeasurementTable.read(path)

    return read


@pytest.fixture(scope="session")
def small_table() -> MeasurementTable:
    """ResNet-18 training on a sub-grid of the AGX Orin, from the cost model."""
    board = load_board("orin-agx")
    modes = board.space.thinned(4).arrays
    cost = minibatch_cost(board.hardware, load_workload("resnet18-train").signature, *modes, 16)
    return MeasurementTable(modes, None, np.round(cost.time_s, 6), np.round(cost.power_w, 3))


@pytest.fixture
def small_csv(small_table, tmp_path) -> Path:
    """The small table on disc."""
    path = tmp_path / "resnet18.csv"
    small_table.write(path)
    return path


@pytest.fixture
def accelerator(monkeypatch) -> FakeAccelerator:
    """This process computes on a fake accelerator."""
    warnings.filterwarnings("ignore", "for .* copying from a non-meta parameter")  # which it is not
    monkeypatch.setattr(Accelerator, "here", classmethod(lambda cls: cls("meta")))
    return FakeAccelerator(monkeypatch)


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a program's entry point in this process; gives what a process of its own would."""

    def call(main: Callable[[], None], *arguments: object) -> subprocess.CompletedProcess[str]:
        words = [main.__module__, *map(str, arguments)]
        monkeypatch.setattr("sys.argv", words)
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return call
