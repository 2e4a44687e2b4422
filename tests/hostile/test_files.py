"""Files that are damaged, or of another kind: one line, at once, and no traceback.

What is damaged may still be whole by chance, and is then taken in.
"""

from __future__ import annotations

import io
import itertools
import os
import pickle
import re
import time
import tracemalloc
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerctl.errors import InvalidInput, PowerctlError
from powerctl.fields import check_name
from powerctl.workload import load_workload
from tests.hostile.files import FILE, FLEET, KINDS
from wattfed.client.fleet import load_fleet
from wattfed.client.fleet.traces import read_traces
from wattfed.server.cli import main as wattfed
from wattfed.strategies.run_config import RunConfig

_LONGEST_S = 10.0  # of one second on a machine that does nothing else
_LONGEST_LINE = 1500
_VALUE = re.compile(rb"-?\d[\d.e+-]*|true|false|null|\"[^\"\n]*\"", re.IGNORECASE)
VALUES = (
    *(b"nan", b"NaN", b"inf", b"Infinity", b"-1", b"0", b"1e308", b"-1e308", b"1e999", b"1e-320"),
    *(
        b"9" * 5000,
        b"9" * 400,
        b"9999999999",
        b"1.5",
        b"true",
        b"null",
        b'"x"',
        b'""',
        b"[]",
        b"{}",
    ),
    *(b"[" * 3000, b'{"a":' * 3000, b"[1, [2, [3]]]", b"\xff", b"\0"),
)
numbers = itertools.count()


def taken_in(kind, path):
    """Open a file by its door: its one line, or nothing where it was taken for whole."""
    began_s = time.thread_time()  # not what others on this machine take
    try:
        kind.open(path)
        line = ""
    except PowerctlError as error:
        line = str(error)
    assert time.thread_time() - began_s < _LONGEST_S
    assert "\n" not in line and len(line) < _LONGEST_LINE, line[:3000]
    return line


def said(main, *words):
    """Exit code and standard error of a command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch("sys.argv", ["command", *map(str, words)]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
    return code, err.getvalue()


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The content of a whole file of each kind."""
    contents = {}
    for kind in KINDS:
        path = tmp_path_factory.mktemp("whole") / kind.name
        kind.write(path)
        contents[kind.name] = path.read_bytes()
    return contents


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A path that no file has had: what is read is remembered by its name."""

    def new(name):
        return tmp_path_factory.mktemp(f"file{next(numbers)}") / name

    return new


def by_name(kind):
    return kind.name


of_every_kind = pytest.mark.parametrize("kind", KINDS, ids=by_name)
on_command_lines = pytest.mark.parametrize("kind", [k for k in KINDS if k.command], ids=by_name)


@st.composite
def damages(draw):
    """A change of content: cut, flip, insert, or another value in the place of one."""
    how = draw(st.sampled_from(("cut", "flip", "insert", "value", "value", "value", "again")))
    at, value = draw(st.integers(0, 2**31)), draw(st.sampled_from(VALUES))

    def damaged(content):
        place = at % (len(content) or 1)
        if how == "cut":
            return content[:place]
        if how == "flip":
            bit = 1 << at % 8
            return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        if how == "insert":
            return content[:place] + value + content[place:]
        if how == "again":
            return content + content[place:]
        found = list(_VALUE.finditer(content))
        if not found:
            return value
        one = found[at % len(found)]
        return content[: one.start()] + value + content[one.end() :]

    return damaged


@of_every_kind
def test_a_whole_file_is_taken_in(kind, whole, place):
    path = place(kind.name)
    _put(path, whole[kind.name])
    assert taken_in(kind, path) == ""


@of_every_kind
@given(damaged=damages())
def test_a_damaged_file_costs_one_line(kind, whole, place, damaged):
    path = place(kind.name)
    _put(path, kind.seal(damaged(whole[kind.name])))
    taken_in(kind, path)


@of_every_kind
@pytest.mark.parametrize("form", ["BOM", "CRLF"])
def test_other_editors_write_the_same(kind, form, whole, place):
    content = whole[kind.name]
    if kind.name.endswith((".pkl", ".npz", ".tar")):
        pytest.skip("no text")
    path = place(kind.name)
    _put(path, b"\xef\xbb\xbf" + content if form == "BOM" else content.replace(b"\n", b"\r\n"))
    assert taken_in(kind, path) == ""


def _put(path, content):
    path.write_bytes(content)
    path.chmod(0o600)


def _empty(path):
    path.write_bytes(b"")


def _loop(path):
    path.symlink_to(path)


NO_FILES = {
    "nothing": lambda path: None,
    "empty": _empty,
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "loop": _loop,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "endless": lambda path: path.symlink_to("/dev/full"),
}


@on_command_lines
@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_file_is_one_line_and_exit_code_2(kind, what, place):
    path = place(kind.name)
    NO_FILES[what](path)
    main, words = kind.command
    out = {FILE: path, "OUT": path.parent / "runs"}
    code, err = said(main, *(out.get(word, word) for word in words))
    assert code == 2 and len(err.splitlines()) == 1 and str(path) in err, err


@on_command_lines
@settings(max_examples=settings.default.max_examples // 6)
@given(value=st.sampled_from(VALUES), at=st.integers(0, 2**31))
def test_a_command_line_says_in_one_line_what_is_wrong(kind, whole, place, value, at):
    path, content = place(kind.name), whole[kind.name]
    found = list(_VALUE.finditer(content))
    one = found[at % len(found)]
    _put(path, kind.seal(content[: one.start()] + value + content[one.end() :]))
    if not taken_in(kind, path):
        return  # and what a command makes of it takes long
    main, words = kind.command
    out = {FILE: path, "OUT": path.parent / "runs"}
    code, err = said(main, *(out.get(word, word) for word in words))
    assert code == 2 and len(err.splitlines()) == 1, err


@pytest.mark.parametrize(
    "content",
    [
        b"r\xff\xff\xff\x1f" + b"N" * 3 + b".",  # a memory of half a billion entries
        b"\x80\x05\x96" + (2 << 30).to_bytes(8, "little") + b".",  # two gigabytes of bytes
        b"\x80\x05\x8e" + (2 << 30).to_bytes(8, "little") + b".",
        b"N" + b"r\xff\xff\xff\x7f.",
        b"p2000000000\n.",
    ],
)
def test_a_few_bytes_of_pickle_take_no_memory(place, content):
    path = place("trace.pkl")
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match="no trace of FedScale"):
            read_traces(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_pickle_that_says_the_same_again_and_again_takes_no_memory(place):
    times = list(range(1000))
    one = {"active": times[::2], "inactive": times[1::2], "finish_time": 1000}
    path = place("trace.pkl")
    path.write_bytes(pickle.dumps(dict.fromkeys(range(5000), one)))
    with pytest.raises(InvalidInput, match="more times than the file has bytes"):
        read_traces(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("count = 3", "count = 1000000000", "group 1: count must be .* at most"),
        ("seed = 1", f"seed = {'9' * 5000}", "not readable as TOML"),
        ("low = 10", "low = nan", "link_mbit_s: low is nan"),
        ("capacity_j = 9000", "capacity_j = 1e308", "capacity_j must be positive and at most"),
        ("crashes_per_h = 0.1", "crashes_per_h = inf", "crashes_per_h must be"),
        ("power_w = [7, 8, 9.5]", f"power_w = {'[' * 60}{']' * 60}", "nested too deeply"),
    ],
)
def test_a_fleet_that_cannot_be_is_named_with_its_group(place, old, new, message):
    path = place("fleet.toml")
    assert old in FLEET
    path.write_text(FLEET.replace(old, new))
    with pytest.raises(InvalidInput, match=message) as caught:
        load_fleet(str(path))
    assert str(path) in str(caught.value) and len(str(caught.value)) < _LONGEST_LINE


@pytest.mark.parametrize("value", ["nan", "-1", "1e308", "inf", '"much"', "[]", "9" * 30])
def test_a_workload_says_field_value_and_range(whole, place, value):
    path = place("workload.toml")
    text = whole["workload.toml"].decode()
    path.write_text(re.sub("(?m)^flop_per_sample = .*$", f"flop_per_sample = {value}", text))
    message = "signature: flop_per_sample is .* and must be a number|20 digits"
    with pytest.raises(InvalidInput, match=message):
        load_workload(str(path))


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "a/../b", "..", ".", ".hidden", "a\0b", "a\nb", "x" * 300, "a//b"]
)
def test_the_name_of_a_run_cannot_lead_out_of_the_results(tmp_path, name):
    with pytest.raises(InvalidInput, match="the name of a run|printable"):
        RunConfig(name=name)
    with pytest.raises(InvalidInput, match="the name of a run|printable"):
        RunConfig.from_flower({"name": name})
    if "\0" not in name:
        code, err = said(wattfed, "simulate", "--name", name, "--out-dir", tmp_path / "runs")
        assert code == 2 and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["pace-2", "oort(clip=0.9)-slack-seed0", "räume", "a_b.c"])
def test_names_of_runs_tell_of_their_parameters(name):
    assert RunConfig(name=name).run_name == name


def test_a_name_is_of_letters_and_digits():
    assert check_name("jetson-0", "the name") == "jetson-0"
    for text in ("", "a b", "../x", "-" * 201):
        with pytest.raises(InvalidInput, match="is no name"):
            check_name(text, "the name")
