"""What commands make of a board's file that cannot be read, or does not hold what it should.

    python -m benchmarks.board_reads --json OUT

On each fake board, the files that powerctl reads are damaged in each way in turn (missing, empty,
unreadable, a folder, text, a huge or negative number, EAGAIN, EIO, another at each read), and a
look, the list of presets, a mode applied and given back, a restore after a kill and a profile are
tried. Each must work, or end with a message; and with the file whole again, all is put back as it
was found. Of files whose paths differ by numbers only (cores, zones, rails) one is drawn for each
board; a profile, which takes longest, meets each file in one way. Nothing here is a Jetson.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import cycle, product
from pathlib import Path
from random import Random
from unittest.mock import patch

import click
from click.testing import CliRunner

from benchmarks.jetson_faults import BOARDS
from powerctl import console
from powerctl.cli import cli
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.doctor.torch_here import TorchHere
from powerctl.errors import PowerctlError
from powerctl.fakes.fake_sysfs import FakeSysfs
from powerctl.fakes.making import make_fake_board
from powerctl.jetson.controller import OwnController
from powerctl.jetson.journal import Journal
from powerctl.jetson.sysfs import Sysfs

Damage = Callable[[str, int], str]
"""Given what a file holds and how often it was read before, what is read; may raise."""


def _refusing(number: int) -> Damage:
    def refuse(content: str, reads: int) -> str:
        raise OSError(number, os.strerror(number))

    return refuse


DAMAGES: dict[str, Damage] = {
    "missing": _refusing(errno.ENOENT),
    "a folder": _refusing(errno.EISDIR),
    "unreadable": _refusing(errno.EACCES),
    "not permitted": _refusing(errno.EPERM),
    "EAGAIN": _refusing(errno.EAGAIN),
    "EIO": _refusing(errno.EIO),
    "empty": lambda content, reads: "",
    "text": lambda content, reads: "<unsupported>",
    "huge": lambda content, reads: "9" * 400,
    "negative": lambda content, reads: "-1",
    "changing": lambda content, reads: (content, content[: len(content) // 2], "", "0")[reads % 4],
}


@contextmanager
def damaged(path: str, damage: Damage) -> Iterator[None]:
    """While it lasts, reading a file of any fake board gives what the damage makes of it."""
    whole, reads = Sysfs.read, 0

    def read(self: FakeSysfs, name: str) -> str:
        nonlocal reads
        if name != path and self.resolve(name) != path:
            return whole(self, name)
        reads += 1
        try:
            return damage(whole(self, name), reads - 1)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, f"/{name}") from None

    def exists(self: FakeSysfs, name: str) -> bool:
        is_missing = damage is DAMAGES["missing"] and self.resolve(name) == path
        return not is_missing and Sysfs.exists(self, name)

    def write(self: FakeSysfs, name: str, text: str) -> None:
        if self.resolve(name) == path and damage in (DAMAGES["missing"], DAMAGES["a folder"]):
            damage("", 0)  # raises
        write_whole(self, name, text)

    write_whole = FakeSysfs._write
    with (
        patch.object(FakeSysfs, "read", read),
        patch.object(FakeSysfs, "exists", exists),
        patch.object(FakeSysfs, "_write", write),
    ):
        yield


class Trial:
    """A fake board on which everything is tried, and what it must look like after."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sysfs = FakeSysfs(root)
        self._before = self._sysfs.settings()

    def files(self, verb: str) -> list[str]:
        """What is read of the board when one thing is done."""
        seen: set[str] = set()

        def read(sysfs: FakeSysfs, name: str) -> str:
            seen.add(sysfs.resolve(name))
            return Sysfs.read(sysfs, name)

        self.prepare(verb)
        with patch.object(FakeSysfs, "read", read):
            self.verbs()[verb]()
        assert self.mend(), f"{verb} does not leave {self.root} as it was"
        return sorted(seen)

    def verbs(self) -> dict[str, Callable[[], None]]:
        """What is tried, by name; each raises what a person would see."""
        out = self.root / "run.jsonl"
        profile = (
            "profile --workload resnet18-train --modes 1 --min-minibatches 5 --time-error 20% "
            "--power-error 20% --device"
        )
        return {
            "doctor": lambda: self._command("doctor --root", self.root),
            "presets": lambda: self._command("nvpmodel --root", self.root),
            "apply": self._apply,
            "restore": lambda: self._command("restore --root", self.root),
            "profile": lambda: self._command(profile, f"jetson:{self.root}", "--out", out),
        }

    def prepare(self, verb: str) -> None:
        """For a restore: apply a mode, and leave the board as a kill leaves it."""
        if verb != "restore":
            return
        controller = OwnController(self._sysfs)
        controller.apply(controller.axes.minimum)
        lock = controller._control._lock
        assert lock is not None
        lock.release()

    def mend(self) -> bool:
        """Restore what is left; whether all is as it was found, and nothing noted."""
        (self.root / "run.jsonl").unlink(missing_ok=True)
        OwnController(self._sysfs).bring_back()
        return self._sysfs.settings() == self._before and not Journal(self._sysfs).found

    def _apply(self) -> None:
        with FakeJetson(self.root) as device:
            device.apply(device.space.minimum)
            device.mode()
            device.idle(1.0)
            device.energy_j()
            device.excess_c()

    def _command(self, words: str, *arguments: object) -> None:
        torch = TorchHere(None, None, None, None, None, ())
        with patch("powerctl.doctor.torch_here.look_at_torch", lambda jetpack: torch):
            done = CliRunner().invoke(cli, [*words.split(), *map(str, arguments)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception


@dataclass
class Result:
    """Of one board: how many trials worked, how many ended with a message, and all others."""

    board: str
    reads: int = 0
    worked: int = 0
    refused: int = 0
    crashed: list[str] = field(default_factory=list)
    not_restored: list[str] = field(default_factory=list)


def try_file(trial: Trial, path: str, kind: str, verb: str, result: Result) -> None:
    """Do one thing with one file damaged in one way, and count what became of it."""
    trial.prepare(verb)
    case = f"{verb}, /{path} {kind}"
    ended, crash = _in_own_process(trial.verbs()[verb], path, kind)
    result.worked += ended == "worked"
    result.refused += ended == "refused"
    if crash:
        result.crashed.append(f"{case}: {crash}")
    with suppress(PowerctlError):
        if trial.mend():
            return
    result.not_restored.append(case)


def _in_own_process(do: Callable[[], None], path: str, kind: str) -> tuple[str, str]:
    """Do something with a file damaged, in a process that ends then; how, and what crashed it."""
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        with open(telling, "w", encoding="utf-8") as out:
            json.dump(_outcome(do, path, kind), out)
        os._exit(0)
    os.close(telling)
    with open(told, encoding="utf-8") as file:
        said = file.read()
    os.waitpid(child, 0)
    ended, crash = json.loads(said or '["crashed", "the process has died"]')
    return ended, crash


def _outcome(do: Callable[[], None], path: str, kind: str) -> tuple[str, str]:
    try:
        with damaged(path, DAMAGES[kind]):
            do()
    except PowerctlError as error:
        in_one_line = str(error) and "\n" not in str(error)
        return "refused", "" if in_one_line else f"not one line: {error}"
    except Exception as error:
        return "crashed", f"{type(error).__name__}: {error}"
    return "worked", ""


def one_of_each(files: list[str], count: int, rng: Random) -> list[str]:
    """Of the files whose paths differ by numbers only, so many, drawn."""
    alike: dict[str, list[str]] = {}
    for path in files:
        alike.setdefault(re.sub(r"\d+", "#", path), []).append(path)
    return [path for group in alike.values() for path in rng.sample(group, min(count, len(group)))]


def _made(folder: Path, result: Result) -> Trial:
    """Another board of the kind that is tried, in order."""
    name, _, jetpack = result.board.partition(":")
    root = folder / f"board-{len(result.not_restored)}"
    make_fake_board(name, jetpack, root)
    return Trial(root)


def examine(board: str, count: int, seed: int) -> Result:
    """All of one board, with so many of the files that are alike."""
    rng, result = Random(f"{seed} {board}"), Result(board)
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        trial = _made(folder, result)
        for verb in trial.verbs():
            files = trial.files(verb)
            result.reads += len(files)
            chosen = one_of_each(files, count, rng)
            in_turn = zip(chosen, cycle(rng.sample(list(DAMAGES), len(DAMAGES))))
            for path, kind in in_turn if verb == "profile" else product(chosen, DAMAGES):
                lost = len(result.not_restored)
                try_file(trial, path, kind, verb, result)
                if len(result.not_restored) > lost:  # the next trial is to have a board in order
                    trial = _made(folder, result)
        return result
    finally:
        shutil.rmtree(folder)


@click.command()
@click.option("--boards", default=BOARDS, show_default=True, help="BOARD:JETPACK, with spaces.")
@click.option("--count", default=1, show_default=True, help="Of files that are alike.")
@click.option("--seed", default=0, show_default=True, help="Of which of them.")
@click.option("--json", "out", default="", metavar="OUT", help="Also write the result as JSON.")
def main(boards: str, count: int, seed: int, out: str) -> None:
    """Damage the files of every fake board in every way, and count what is not borne."""
    logging.getLogger("powerctl").setLevel(logging.CRITICAL)  # it tells of every fault
    results = []
    for board in boards.split():
        click.echo(board, err=True)
        results.append(examine(board, count, seed))
        for case in (*results[-1].crashed, *results[-1].not_restored):
            click.echo(f"{board}: {case}", err=True)
    rows: list[list[object]] = [
        [r.board, r.reads, r.worked, r.refused, len(r.crashed), len(r.not_restored)]
        for r in results
    ]
    rows.append(["all", *(sum(int(str(row[i])) for row in rows) for i in range(1, 6))])
    header = ("board", "files read", "worked", "ended with a message", "crashed", "not restored")
    console.print_table(header, rows)
    if out:
        Path(out).write_text(json.dumps([asdict(r) for r in results], indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
