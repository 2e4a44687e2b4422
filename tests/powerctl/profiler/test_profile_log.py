"""The log survives what happens to files, and refuses what it cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.boards import load_board
from powerctl.errors import InvalidInput, InvalidTable
from powerctl.modes import PowerMode
from powerctl.profiler import Procedure, ProfiledMode
from powerctl.profiler.profile_log import LogHeader, ProfileLog
from tests.full_disc import largest_file

BOARD = load_board("orin-agx")
HEADER = LogHeader("orin-agx", "34.1", "resnet18-train", "train", "twin:orin-agx", Procedure(), 1.5)


def entry(number=0, batch_size=16):
    return ProfiledMode(
        mode=BOARD.space.mode(number),
        batch_size=batch_size,
        time_s=0.1 + number / 3,
        time_std=0.01,
        n_minibatches=40,
        power_w=20.0 + number / 7,
        power_std=0.2,
        n_windows=4,
        warmup=1,
        seconds=4.2,
        precise=number % 2 == 0,
    )


@pytest.fixture
def path(tmp_path):
    """A log of three entries."""
    path = tmp_path / "log.jsonl"
    with ProfileLog.open(path, HEADER) as log:
        for number in range(3):
            log.append(entry(number))
    return path


def edited(path, line, change):
    """The log with one line changed."""
    lines = path.read_text().splitlines()
    lines[line - 1] = change(lines[line - 1])
    path.write_text("\n".join(lines) + "\n")


def with_fields(**fields):
    return lambda line: json.dumps({**json.loads(line), **fields})


def test_what_is_written_is_read(path):
    log = ProfileLog.read(path)
    assert log.header == HEADER
    assert log.entries == tuple(entry(number) for number in range(3))
    table = log.table()
    assert table[1] == entry(1).measurement and table.source == str(path)


def test_an_opened_log_goes_on(path):
    with ProfileLog.open(path, replace(HEADER, started=99.0)) as log:
        assert len(log.entries) == 3
        log.append(entry(3))
    assert ProfileLog.read(path).entries == tuple(entry(number) for number in range(4))
    assert ProfileLog.read(path).header.started == 1.5


def test_every_line_is_on_the_disc_before_the_log_is_closed(tmp_path):
    with ProfileLog.open(tmp_path / "log", HEADER) as log:
        log.append(entry())
        assert ProfileLog.read(tmp_path / "log").entries == (entry(),)


@given(cut=st.integers(min_value=1))
def test_a_log_cut_off_anywhere_goes_on_with_its_whole_lines(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "log"
    with ProfileLog.open(path, HEADER) as log:
        for number in range(3):
            log.append(entry(number))
    content = path.read_bytes()
    content = content[: cut % len(content)]
    path.write_bytes(content)
    whole = max(content.count(b"\n") - 1, 0)
    with ProfileLog.open(path, HEADER) as log:
        assert log.entries == tuple(entry(number) for number in range(whole))
        log.append(entry(7))
    assert ProfileLog.read(path).entries[-1] == entry(7)
    assert len(ProfileLog.read(path).entries) == whole + 1


@pytest.mark.parametrize("tail", [b"\0" * 80, b"\0" * 80 + b"\n", b'{"cores": 12, "cpu'])
def test_what_a_power_loss_leaves_at_the_end_is_cut_off(path, tail):
    content = path.read_bytes()
    path.write_bytes(content + tail)
    assert len(ProfileLog.read(path).entries) == 3
    ProfileLog.open(path, HEADER).close()
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line[:30], "line 3: damaged"),
        (lambda line: "[1, 2]", "line 3: damaged"),
        (with_fields(time_s=float("nan")), "line 3: damaged: time_s is nan"),
        (with_fields(power_w=-3), "line 3: damaged: power_w is -3"),
        (with_fields(n_minibatches="40"), "line 3: damaged: n_minibatches is '40'"),
        (with_fields(batch_size=True), "line 3: damaged: batch_size is True"),
        (with_fields(precise=1), "line 3: damaged: precise is 1"),
        (with_fields(cores=None), "line 3: damaged: cores is None"),
    ],
)
def test_a_damaged_line_is_named(path, change, message):
    edited(path, 3, change)
    before = path.read_bytes()
    for attempt in (ProfileLog.read, lambda p: ProfileLog.open(p, HEADER)):
        with pytest.raises(InvalidTable, match=message) as caught:
            attempt(path)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_a_measurement_that_stands_twice_is_named(path):
    path.write_text(path.read_text() + path.read_text().splitlines()[2] + "\n")
    with pytest.raises(InvalidTable, match="line 5: the measurement of line 3 again"):
        ProfileLog.read(path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"board": "orin-nano"}, "log is of board 'orin-agx', not 'orin-nano'"),
        ({"l4t": "36.4"}, "l4t '34.1', not '36.4'"),
        ({"workload": "lstm-train"}, "workload 'resnet18-train', not 'lstm-train'"),
        ({"device": "jetson"}, "device 'twin:orin-agx', not 'jetson'"),
        ({"procedure": Procedure(time_error=0.05)}, "time_error=0.02, not time_error=0.05"),
    ],
)
def test_a_log_of_something_else_is_refused(path, other, message):
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match=message) as caught:
        ProfileLog.open(path, replace(HEADER, **other))
    assert f"{path}, line 1" in str(caught.value)
    assert path.read_bytes() == before


def test_a_newer_version_is_refused(path):
    edited(path, 1, with_fields(version=2))
    with pytest.raises(InvalidInput, match="line 1: the log has version 2, this powerctl reads 1"):
        ProfileLog.open(path, HEADER)


def test_a_damaged_header_is_named(path):
    edited(path, 1, with_fields(procedure={"min_minibatches": 0}))
    with pytest.raises(InvalidTable, match="line 1: the header is damaged"):
        ProfileLog.read(path)


@pytest.mark.parametrize("content", ["cores,cpu_khz\n12,1\n", "notes", '{"a": 1}\n', "[]\n"])
def test_another_file_is_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(InvalidInput, match="line 1: not a log of powerctl profile"):
        ProfileLog.open(path, HEADER)
    assert path.read_text() == content


def test_no_file_and_no_folder_are_named(tmp_path):
    with pytest.raises(InvalidInput, match="no such file"):
        ProfileLog.read(tmp_path / "none")
    with pytest.raises(InvalidInput, match="cannot be written"):
        ProfileLog.open(tmp_path / "no" / "log", HEADER)


def test_two_profilers_never_write_one_log(path):
    code = (
        "import sys; from tests.powerctl.profiler.test_profile_log import *\n"
        "try: ProfileLog.open(sys.argv[1], HEADER)\n"
        "except InvalidInput as error: print(error)\n"
        "else: print('opened')"
    )

    def other():
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
        return done.stdout.strip()

    with ProfileLog.open(path, HEADER):
        assert "another profiler is writing this log" in other()
        with pytest.raises(InvalidInput, match="another profiler"):
            ProfileLog.open(path, HEADER)
        assert len(ProfileLog.read(path).entries) == 3
    assert other() == "opened"


def test_a_log_that_was_only_read_is_not_written(path):
    with pytest.raises(InvalidInput, match="not open for writing"):
        ProfileLog.read(path).append(entry(5))


def test_a_device_file_is_refused():
    with pytest.raises(InvalidInput, match="/dev/null: not a regular file"):
        ProfileLog.open("/dev/null", HEADER)


def test_a_write_that_does_not_fit_is_said_and_taken_back(path):
    """Part of the line fits."""
    content = path.read_bytes()
    with ProfileLog.open(path, HEADER) as log:
        with (
            largest_file(len(content) + 50),
            pytest.raises(InvalidInput, match="cannot be written: the disc is full"),
        ):
            log.append(entry(3))
        assert path.read_bytes() == content
        log.append(entry(4))
    assert ProfileLog.read(path).entries[3:] == (entry(4),)


def test_a_mode_of_any_board_is_kept(tmp_path):
    odd = replace(entry(), mode=PowerMode(1, 2, 3, 4))
    with ProfileLog.open(tmp_path / "log", HEADER) as log:
        log.append(odd)
    assert ProfileLog.read(tmp_path / "log").entries == (odd,)
