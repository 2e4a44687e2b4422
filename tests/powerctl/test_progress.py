"""Long work tells where it stands, short work says nothing, and the time left is soon right."""

from __future__ import annotations

import math
import re
import sys

import pytest

from powerctl import progress
from powerctl.progress import Progress, TimeLeft
from tests.processes import Command
from tests.waiting import await_state

pytestmark = pytest.mark.processes

SLOW = """
import time
from powerctl.progress import Progress
with Progress("modes", 40) as shown:
    for number in range(40):
        time.sleep({pause_s})
        shown.update(number + 1, note=f"at {{number}}")
    shown.say("a line that stays")
print("the end")
"""


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_slow_first_item_does_not_make_the_rest_look_slow(at_once):
    left, ends_s = TimeLeft(0.0, at_once=at_once), []
    for batch in range(5):  # 60 s for the first, then 10 s each, as many at a time
        for item in range(at_once):
            ends_s.append(60.0 + 10 * batch + 0.01 * item)
    for number, end_s in enumerate(ends_s, start=1):
        left.note(end_s, number)
    total = 10 * at_once
    assert left.left_s(ends_s[-1], total) == pytest.approx(50, rel=0.1)
    assert left.left_s(ends_s[-1] + 4, total) == pytest.approx(46, rel=0.1)


def test_nothing_is_known_before_something_is_done_and_what_was_done_before_does_not_count():
    left = TimeLeft(100.0, done=90)
    assert math.isnan(left.left_s(105.0, 100))
    left.note(110.0, 91)
    assert left.left_s(110.0, 100) == pytest.approx(90)
    left.note(110.5, 91)
    assert left.left_s(300.0, 100) == 0


def test_parts_of_an_item_count():
    left = TimeLeft(0.0)
    left.note(5.0, 0.5)
    assert left.left_s(5.0, 2) == pytest.approx(15)


def test_work_of_less_than_two_seconds_says_nothing(capsys):
    with Progress("modes", 3) as shown:
        shown.update(2)
    assert capsys.readouterr() == ("", "")


def test_in_a_log_a_line_comes_where_nothing_else_was_said(monkeypatch):
    monkeypatch.setattr(progress, "_QUIET_S", 0.0)
    monkeypatch.setattr(progress, "_HEARTBEAT_S", 0.01)
    lines: list[str] = []
    with Progress("rounds", 15, say=lines.append) as shown:
        shown.begin(3)
        shown.update(3, note="round 4: 2 of 6 clients trained")
        await_state(lambda: "rounds 3 of 15, round 4: 2 of 6 clients trained" in lines)
        shown.update(4, note="")
        await_state(lambda: re.fullmatch(r"rounds 4 of 15, about \d+ s left", lines[-1]))
    shown.say("the end")
    assert lines[-1] == "the end"


def test_work_without_a_count_tells_how_long_it_has_taken(monkeypatch):
    monkeypatch.setattr(progress, "_QUIET_S", 0.0)
    lines: list[str] = []
    with Progress("fitting", say=lines.append):
        await_state(lambda: lines)
    assert re.fullmatch(r"fitting, \d+ s so far", lines[0])


@pytest.mark.parametrize("terminal", [False, True])
def test_a_process_shows_a_bar_on_a_terminal_and_a_line_in_a_pipe(tmp_path, terminal):
    name = sys.executable.rpartition("/")[2]
    run = Command(name, "-c", SLOW.format(pause_s=0.1), cwd=tmp_path, terminal=terminal)
    assert run.end() == 0
    assert "modes " in run.text and " of 40, at " in run.text and " left" in run.text
    assert ("━" in run.text) == terminal
    assert run.text.count("a line that stays") == 1
    assert run.text.splitlines()[-1].endswith("the end")
