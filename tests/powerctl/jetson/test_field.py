"""Boards as they were found: every command works there, or says in a line why not."""

from __future__ import annotations

import json
from contextlib import ExitStack, nullcontext, suppress

import pytest
from click.testing import CliRunner

from benchmarks.board_reads import DAMAGES, damaged
from powerctl.cli import cli
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.devices.jetson import Jetson
from powerctl.devices.opening import open_device
from powerctl.errors import PowerctlError
from powerctl.fakes.layout import FAKE_MARKER
from powerctl.jetson.journal import Journal
from tests.powerctl.doctor.torches import quick_torch  # noqa: F401, fixture
from tests.powerctl.jetson.conftest import as_if_killed
from tests.powerctl.jetson.field import FIELD

pytestmark = pytest.mark.usefixtures("quick_torch")


@pytest.fixture(params=FIELD)
def found(request, fake):
    """A board of the field, and what is special of it."""
    case = FIELD[request.param]
    made = fake(case.board, case.jetpack)
    case.change(made)
    with ExitStack() as lacking:
        for path in case.lacks(made.kernel.layout):
            lacking.enter_context(damaged(path, DAMAGES["missing"]))
        yield case, made


def run(words, *arguments):
    """What a command prints; the error that a person would be told, else."""
    done = CliRunner().invoke(cli, [*words.split(), *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_modes_are_set_and_given_back_or_it_is_said_why_not(found, tmp_path):
    case, made = found
    before = made.settings()
    words = "profile --workload resnet18-train --modes 1 --device"
    if case.sets_modes:
        with FakeJetson(made.root) as device:
            device.apply(device.space.minimum)
            device.idle(4)
            device.verify()
            assert made.mode() == device.space.minimum and device.excess_c() < 0
            assert device.watch_throttling()() == ""
        assert made.settings() == before
    else:
        with pytest.raises(PowerctlError, match=r"^[^\n]*/run/powerctl:/run/powerctl[^\n]*$"):
            FakeJetson(made.root)
    is_profiled = case.sets_modes and case.measures_power
    with nullcontext() if is_profiled else pytest.raises(PowerctlError, match=r"^[^\n]+$"):
        run(words, f"jetson:{made.root}", "--out", tmp_path / "run.jsonl")
    assert made.settings() == before and not Journal(made).found


def test_what_a_kill_left_is_restored(found):
    _, made = found
    before = made.settings()
    with suppress(PowerctlError):  # where no modes are set, there is nothing to restore
        device = FakeJetson(made.root)
        device.apply(device.space.minimum)
        as_if_killed(device)
    run("restore --root", made.root)
    assert made.settings() == before and not Journal(made).found


def test_the_doctor_and_the_list_of_presets_say_what_there_is(found):
    case, made = found
    said = json.loads(run("doctor --json --root", made.root))
    assert said["ok"] == case.sets_modes
    assert said["throttles_now"] == ""
    assert [axis["name"] for axis in said["axes"] if axis["values"]][:3] == [
        *("cores", "cpu_khz", "gpu_hz")
    ]
    try:
        assert run("nvpmodel --root", made.root).count("\n") == 1 + len(said["presets"])
    except PowerctlError as error:
        assert "nvpmodel is not installed here" in str(error) and not said["presets"]


def test_a_recording_of_it_shows_the_same(found, tmp_path):
    case, made = found
    lacks = case.lacks(made.kernel.layout)
    (made.root / FAKE_MARKER).unlink()  # plain files from here on, as a board's
    for path in lacks:
        (made.root / path).unlink()
    file = tmp_path / "board.tar"
    run("doctor --record", file, "--root", made.root)
    assert shown(file) == shown(made.root)
    if case.sets_modes:
        with open_device(f"recorded:{file}") as device, Jetson(made.root) as board:
            assert (device.space.axes, device.mode()) == (board.space.axes, board.mode())
            assert device.excess_c() == board.excess_c()
    else:
        with pytest.raises(PowerctlError, match=r"^[^\n]+$"):
            open_device(f"recorded:{file}")


def shown(root):
    """What the doctor says of a board, but for what it may do there."""
    said = json.loads(run("doctor --json --root", root))
    return {k: v for k, v in said.items() if k not in ("ok", "missing", "axes", "daemon", "torch")}
