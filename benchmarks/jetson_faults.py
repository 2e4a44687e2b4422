"""Whether a board is always left as it was found: every fault at every write, and every kill.

    python -m benchmarks.jetson_faults --modes 200 --json OUT

On each fake board: random modes are applied and read back from its kernel; then a way from the
state of a boot up to the highest mode, down to the lowest and back is gone once for each of its
writes and each kind of fault at that write, and once for each write at which the process is
killed (SIGKILL), before it and after it. Both by the process itself, and by the daemon;
what a kill left, the next controller or the next daemon restores. Nothing here is a Jetson.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np

from benchmarks.kernel_faults import FAULTS, at_write
from powerctl import console
from powerctl.daemon.board_lock import BoardLock, Client
from powerctl.daemon.peers import Peer
from powerctl.errors import ModeNotInForce
from powerctl.fakes.fake_sysfs import FakeSysfs
from powerctl.fakes.making import make_fake_board
from powerctl.jetson.controller import OwnController
from powerctl.jetson.journal import Journal
from powerctl.modes import PowerMode

BOARDS = (
    "orin-agx:5.0 orin-agx:5.1 orin-agx:6 orin-nx:5.1 orin-nx:6 orin-nano:5.1 orin-nano:6 "
    "orin-nano:7 xavier-agx:4 xavier-agx:5.1 xavier-nx:4 xavier-nx:5.1 nano:4"
)


@dataclass
class Result:
    """Of one board, set in one way; counts of trials by kind, and of those not undone."""

    board: str
    jetpack: str
    by: str
    modes: int
    writes: int
    trials: dict[str, int] = field(default_factory=dict)
    reported: int = 0
    not_restored: int = 0


@dataclass
class Setter:
    """Who sets the modes: the process itself, or the daemon's board lock for a client."""

    apply: Callable[[PowerMode], object]
    restore: Callable[[], object]


def by_itself(sysfs: FakeSysfs) -> Setter:
    """As root without a daemon; what a killed one left is restored first."""
    controller = OwnController(sysfs)
    controller.bring_back()
    return Setter(controller.apply, controller.restore)


def by_daemon(sysfs: FakeSysfs) -> Setter:
    """As the daemon does for a client; its start restores what a killed one left."""
    board_lock, client = BoardLock(sysfs), Client(Peer(os.getpid(), os.geteuid(), frozenset()))
    return Setter(lambda mode: board_lock.apply(client, mode), lambda: board_lock.restore(client))


WAYS = {"itself": by_itself, "daemon": by_daemon}


class Trial:
    """A board and what it must look like after everything that is done to it."""

    def __init__(self, root: Path, way: Callable[[FakeSysfs], Setter]) -> None:
        self._root = root
        self._way = way
        self._sysfs = FakeSysfs(root)
        self.axes = OwnController(self._sysfs).axes
        self._before = self._sysfs.settings()
        self._setter = way(self._sysfs)

    @property
    def is_as_found(self) -> bool:
        """Whether nothing is changed, and nothing noted as changed."""
        return self._sysfs.settings() == self._before and not Journal(self._sysfs).found

    def apply_random(self, count: int, seed: int) -> int:
        """Apply random modes, and restore; gives how many the kernel was in as asked."""
        rng, in_force = np.random.default_rng(seed), 0
        for _ in range(count):
            mode = PowerMode(*(axis[int(rng.integers(len(axis)))] for axis in self.axes.axes))
            self._setter.apply(mode)
            in_force += self._sysfs.mode() == mode
        self._setter.restore()
        return in_force

    def there_and_back(self, setter: Setter | None = None) -> int:
        """Go the way; gives its writes."""
        setter, before = setter or self._setter, self._sysfs.writes
        setter.apply(self.axes.maximum)
        setter.apply(self.axes.minimum)
        setter.restore()
        return self._sysfs.writes - before

    def with_fault(self, kind: str, number: int) -> bool:
        """Go the way with a fault at one of its writes; whether it was reported."""
        self._sysfs.fault = at_write(self._sysfs.writes + number, FAULTS[kind])
        try:
            self.there_and_back()
            return False
        except ModeNotInForce:
            return True
        finally:
            self._sysfs.fault = lambda write, path, text: text

    def killed(self, number: int) -> None:
        """Let a child go the way, killed at a write; then restore as the next one to come does."""
        child = os.fork()
        if child == 0:
            self._sysfs = FakeSysfs(self._root)
            setter = self._way(self._sysfs)
            self._sysfs.fault = at_write(
                self._sysfs.writes + number, lambda path, text: os.kill(os.getpid(), signal.SIGKILL)
            )
            self.there_and_back(setter)
            os.kill(os.getpid(), signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        self._way(self._sysfs)


def examine(board: str, by: str, modes: int, seed: int) -> Result:
    """All of one board."""
    name, _, jetpack = board.partition(":")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        make_fake_board(name, jetpack, folder / "board")
        trial = Trial(folder / "board", WAYS[by])
        in_force = trial.apply_random(modes, seed)
        result = Result(name, jetpack, by, in_force, trial.there_and_back())
        result.not_restored += not trial.is_as_found
        for number in range(1, result.writes + 1):
            for kind in FAULTS:
                result.reported += trial.with_fault(kind, number)
                result.trials[kind] = result.trials.get(kind, 0) + 1
                result.not_restored += not trial.is_as_found
        for number in range(1, result.writes + 2):  # before each write, and after the last
            trial.killed(number)
            result.trials["kill -9"] = result.trials.get("kill -9", 0) + 1
            result.not_restored += not trial.is_as_found
        return result
    finally:
        shutil.rmtree(folder)


@click.command()
@click.option("--boards", default=BOARDS, show_default=True, help="BOARD:JETPACK, with spaces.")
@click.option("--by", default="itself,daemon", show_default=True, help="Who writes.")
@click.option("--modes", default=200, show_default=True, help="Random modes on each board.")
@click.option("--seed", default=0, show_default=True, help="Of the modes.")
@click.option("--json", "out", default="", metavar="OUT", help="Also write the result as JSON.")
def main(boards: str, by: str, modes: int, seed: int, out: str) -> None:
    """Fault every write on every fake board, and count what is not as it was."""
    logging.getLogger("powerctl.daemon").setLevel(logging.CRITICAL)  # it tells of every fault
    results = []
    for board in boards.split():
        for way in by.split(","):
            click.echo(f"{board} by {way}", err=True)
            results.append(examine(board, way, modes, seed))
    kinds = (*FAULTS, "kill -9")
    rows: list[list[object]] = [
        [
            f"{r.board}, JetPack {r.jetpack}",
            *(r.by, r.modes, r.writes),
            *(r.trials[kind] for kind in kinds),
            *(r.reported, r.not_restored),
        ]
        for r in results
    ]
    totals = ["all", "", sum(r.modes for r in results), ""]
    totals += [sum(r.trials[kind] for r in results) for kind in kinds]
    totals += [sum(r.reported for r in results), sum(r.not_restored for r in results)]
    header = ("board", "by", "modes in force", "writes", *kinds, "reported", "not restored")
    console.print_table(header, [*rows, totals])
    click.echo(f"fake boards; {modes} random modes on each; kills restored by who comes next")
    if out:
        Path(out).write_text(json.dumps([asdict(r) for r in results], indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
