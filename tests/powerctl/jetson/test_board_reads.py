"""Property: whatever a file of a board holds, commands work or say why not, and all is restored."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.board_reads import DAMAGES, Result, Trial, try_file
from powerctl.fakes.making import make_fake_board
from tests.powerctl.jetson.conftest import BOARDS

pytestmark = pytest.mark.processes

VERBS = ("doctor", "presets", "apply", "restore", "profile")


@pytest.fixture(scope="module")
def trial_of():
    """A fake board on which something is tried, and the files that this reads; each made once."""
    logging.getLogger("powerctl").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    trials, files = {}, {}

    def trial_of(board, verb):
        if board not in trials:
            make_fake_board(*board, folder / "-".join(board))
            trials[board] = Trial(folder / "-".join(board))
        if (board, verb) not in files:
            files[board, verb] = trials[board].files(verb)
        return trials[board], files[board, verb]

    yield trial_of
    logging.getLogger("powerctl").setLevel(logging.NOTSET)
    shutil.rmtree(folder)


def check(trial_of, board, verb, kind, at):
    """Try it, and hold what became of it against what must."""
    trial, files = trial_of(board, verb)
    result = Result("")
    try_file(trial, files[int(at * len(files))], kind, verb, result)
    assert not result.crashed and not result.not_restored
    assert result.worked + result.refused == 1


@settings(max_examples=settings.default.max_examples // 2)
@given(
    board=st.sampled_from(BOARDS),
    verb=st.sampled_from(VERBS),
    kind=st.sampled_from(sorted(DAMAGES)),
    at=st.floats(0, 1, exclude_max=True),
)
def test_a_damaged_file_ends_in_a_message_or_does_no_harm(trial_of, board, verb, kind, at):
    check(trial_of, board, verb, kind, at)


@pytest.mark.parametrize("kind", ["not permitted", "text", "changing"])
@pytest.mark.parametrize(
    "file",
    ["online", "scaling_max_freq", "affected_cpus", "power/control", "boot_id", "curr1_input"],
)
def test_what_is_noted_before_it_is_changed_is_what_the_board_holds(trial_of, file, kind):
    """The files on which it rests that all can be brought back."""
    verb = "restore" if file == "boot_id" else "apply"
    _, files = trial_of(("orin-nano", "5.1"), verb)
    number = next(i for i, path in enumerate(files) if path.endswith(file))
    check(trial_of, ("orin-nano", "5.1"), verb, kind, (number + 0.5) / len(files))


@pytest.mark.parametrize("verb", ["doctor", "apply"])
def test_a_list_of_cores_that_is_torn_ends_in_a_message(trial_of, verb):
    _, files = trial_of(("orin-agx", "5.0"), verb)
    number = files.index("sys/devices/system/cpu/present")
    check(trial_of, ("orin-agx", "5.0"), verb, "changing", (number + 0.5) / len(files))


def test_a_memory_clock_that_cannot_be_held_is_not_asked_for(trial_of):
    """Of a Tegra X1 the rate is written first, and would stay asked for."""
    hold = "sys/kernel/debug/clk/override.emc/clk_state"
    _, files = trial_of(("nano", "4"), "apply")
    check(trial_of, ("nano", "4"), "apply", "missing", (files.index(hold) + 0.5) / len(files))
