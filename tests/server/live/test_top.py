"""The terminal view, through the command."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from powerctl.errors import InvalidInput
from tests import warm
from tests.strategies.offers_of import report
from tests.waiting import TIMEOUT_S
from wattfed.server.cli import cli
from wattfed.server.live.run import LiveRun
from wattfed.server.live.snapshot import run_state
from wattfed.server.run.results import ResultsFolder

pytestmark = pytest.mark.processes

WATTFED = Path(sys.executable).parent / "wattfed"


def top(*arguments) -> str:
    done = CliRunner().invoke(cli, ["top", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def rows_below(output: str, first_word: str) -> list[list[str]]:
    lines = output.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(first_word)) + 1
    end = lines.index("", start) if "" in lines[start:] else len(lines)
    return [line.split() for line in lines[start:end]]


def test_a_snapshot_shows_rounds_and_clients_of_a_run_that_goes_on(running, folder):
    running.go_on(2)
    output = top(folder.parent)
    assert output.startswith("running, round 2 of 4, written") and f": {folder}\n" in output
    assert [row[0] for row in rows_below(output, "round ")] == ["0", "1", "2"]
    accounts = LiveRun(folder).look().clients
    shown = {row[0]: row for row in rows_below(output, "client")}
    assert set(shown) == {str(account.client) for account in accounts}
    for account in accounts:
        words = shown[str(account.client)]
        assert words[1] == ("orin-agx" if account.client < 2 else "orin-nano")
        assert words[2:6] == f"{account.trained} of {account.asked} {account.last_round}".split()
        assert (words[10] == "-") == (account.client >= 2)  # who has no budget


def test_a_run_that_only_began_and_one_that_ended_are_called_so(running, folder, tmp_path):
    running.finish()
    assert "finished, round 4 of 4" in top(folder, "--once")
    ResultsFolder(tmp_path / "new").begin(running.config)
    assert "the initial model is not evaluated yet" in top(tmp_path / "new")


def test_json_is_the_whole_snapshot(running, folder):
    running.go_on()
    record = json.loads(top(folder, "--json"))
    assert record == LiveRun(folder).look().record()


def test_a_folder_without_a_run_is_an_error_of_one_line(tmp_path):
    with pytest.raises(InvalidInput, match="no run here"):
        top(tmp_path, "--once")


def test_what_a_client_says_does_not_reach_the_terminal_as_a_command(running, folder):
    reason = "\x1b]0;owned\x07\nclient 9"
    now = LiveRun(folder).look()
    ResultsFolder(folder).add_round(now.rows[0], [report(0, minibatches=0, decline=reason)])
    with pytest.raises(InvalidInput, match="must be printable text") as refused:
        LiveRun(folder).look()
    assert "\x1b" not in str(refused.value) and "\nclient 9" not in str(refused.value)


def until(screen: int, words: bytes) -> bytes:
    """What a terminal shows until some words."""
    seen = b""
    while words not in seen:
        assert select.select([screen], [], [], TIMEOUT_S)[0], seen
        seen += os.read(screen, 65536)
    return seen


def test_on_a_terminal_it_is_drawn_again_in_place_until_the_run_ends(running, folder):
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    command = [WATTFED, "top", folder, "--every", "0.1"]
    environment = {**os.environ, "TERM": "xterm"}
    process = warm.Popen(command, stdin=terminal, stdout=terminal, env=environment)
    os.close(terminal)
    seen = until(screen, b"running, round 0 of 4")
    running.go_on()
    seen += until(screen, b"running, round 1 of 4")
    running.finish()
    seen += until(screen, b"finished, round 4 of 4")
    assert process.wait(TIMEOUT_S) == 0
    assert b"\x1b[1A" in seen


@pytest.mark.parametrize(
    ("silent_s", "words"),
    [
        (5, "running, round 0 of 4, written"),
        (601, "silent for 10 min"),
        (90_000, "silent for 25 h"),
    ],
)
def test_a_run_that_writes_nothing_for_longer_than_a_round_waits_is_called_silent(
    running, folder, silent_s, words
):
    now = LiveRun(folder).look()
    assert run_state(replace(now, written_s=time.time() - silent_s)).startswith(words)
