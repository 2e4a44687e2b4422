"""Breaks wattfed, where it can: what others send and write, changed at random, at every door.

    python -m benchmarks.break --minutes 30
    python -m benchmarks.break --minutes 5 --only messages --seed 7

Valid messages, files, command lines, journals, model files and calls of an agent are changed by
their structure alone, and each is tried in a process of its own. A run must end well, and its
honest clients must count; a command must end with a line and an exit code, within 20 s and 1 GiB,
also when SIGTERM stops it, and write nothing beside the folder it stands in; a file is read or
refused in 2 s of computing and 512 MiB; a daemon must start, and restore the board or say that it
did not, whatever another user does; pickled code in a model file must not run; an agent must
answer, and log no traceback. A case that does otherwise is made small, printed as a few lines of
Python that show it again, and saved; then the exit code is 1.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from benchmarks.breaking.mutation import Edit, changed, smaller, some_edits
from benchmarks.breaking.trying import Door, Found, tried
from powerctl import console

KINDS = ("messages", "files", "commands", "daemon", "models", "agent")
_SHRINK_S = 15.0


def doors_of(kind: str, stack: ExitStack) -> list[Door]:
    """The doors of a kind; what they need lasts as long as the stack."""
    return list(importlib.import_module(f"benchmarks.breaking.{kind}").doors(stack))


def again(kind: str, name: str, edits: Sequence[Edit]) -> Found:
    """What becomes of a case that was found; as printed and saved cases call it."""
    with ExitStack() as stack:
        (door,) = (door for door in doors_of(kind, stack) if door.name == name)
        found = tried(door, changed(door.example, edits))
    click.echo(f"{found.word} {found.kind}\n{found.detail}")
    return found


class Search:
    """A search at some doors, and what it has come to.

    Attributes
    ----------
    ends : dict of str to Counter
        By door, how cases ended.
    found : dict of tuple to tuple
        By kind of failure, its smallest case and all about it.
    """

    def __init__(self, doors: Sequence[Door], seed: int) -> None:
        self._doors = doors
        self._rng = random.Random(seed)
        self.ends: dict[str, Counter[str]] = {door.name: Counter() for door in doors}
        self.found: dict[str, tuple[Door, list[Edit], Found]] = {}

    def run(self, seconds: float) -> Iterator[tuple[Door, list[Edit], Found]]:
        """Search for so long; each failure of a new kind, with its smallest case.

        The first case of a door is its example as it is; each door is tried once at least.
        """
        gc.freeze()  # what is here now is every child's, whom a collection would have copy it
        end_s = time.monotonic() + seconds
        for passes in itertools.count():
            for door in self._rng.sample(self._doors, len(self._doors)):
                if passes and time.monotonic() >= end_s:
                    return
                begun = bool(self.ends[door.name])
                edits = some_edits(door.example, self._rng) if begun else []
                found = tried(door, changed(door.example, edits))
                self.ends[door.name][found.word] += 1
                if found.kind and found.kind not in self.found:
                    least = self._smallest(door, edits, found)
                    self.found[found.kind] = least
                    yield least

    def _smallest(
        self, door: Door, edits: list[Edit], found: Found
    ) -> tuple[Door, list[Edit], Found]:
        end_s, last = time.monotonic() + _SHRINK_S, [found]

        def fails(fewer: Sequence[Edit]) -> bool:
            if time.monotonic() > end_s:
                return False
            now = tried(door, changed(door.example, fewer))
            if now.kind == found.kind:
                last[0] = now
            return now.kind == found.kind

        return door, smaller(edits, fails), last[0]


def snippet(kind: str, door: Door, edits: Sequence[Edit]) -> str:
    """Python that tries a case again."""
    lines = "".join(f"    {edit!r},\n" for edit in edits)
    return (
        "from importlib import import_module\nfrom math import inf, nan\n\n"
        "from benchmarks.breaking.mutation import Drop, Put, Repeat\n\n"
        "from benchmarks.breaking import daemon, files\n"
        f"edits = [\n{lines}]\n"
        f"import_module('benchmarks.break').again({kind!r}, {door.name!r}, edits)\n"
    )


@click.command(help=__doc__)
@click.option("--minutes", default=30.0, show_default=True, type=click.FloatRange(min=0))
@click.option("--seed", default=0, show_default=True, help="Of the changes.")
@click.option("--only", "kinds", multiple=True, type=click.Choice(KINDS), help="May be repeated.")
@click.option("--door", "part", default="", help="Only doors that have this in their name.")
@click.option("--out", default="broken", show_default=True, type=click.Path(path_type=Path))
def main(minutes: float, seed: int, kinds: tuple[str, ...], part: str, out: Path) -> None:
    """Run the search."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
    n_found = 0
    kinds = kinds or KINDS
    for kind in kinds:
        with ExitStack() as stack:
            doors = [door for door in doors_of(kind, stack) if part in door.name]
            search = Search(doors, seed)
            begun_s = time.monotonic()
            for door, edits, found in search.run(60 * minutes / len(kinds)):
                n_found += 1
                out.mkdir(parents=True, exist_ok=True)
                case = snippet(kind, door, edits)
                path = out / f"{kind}-{seed}-{len(search.found)}.py"
                path.write_text(case)
                told = (f"\n{door.name}: {found.kind}", found.detail[-1500:], case[:2000], path)
                click.echo("\n".join(map(str, told)))
            report(kind, search, time.monotonic() - begun_s)
    if n_found:
        click.echo(f"{n_found} kinds of failure")
        sys.exit(1)


def report(kind: str, search: Search, seconds: float) -> None:
    """Print which doors were tried, how often, and how that ended."""
    words = sorted({word for ends in search.ends.values() for word in ends})
    rows: list[tuple[Any, ...]] = [
        (name[:60], sum(ends.values()), *(ends[word] for word in words))
        for name, ends in search.ends.items()
    ]
    total = sum(row[1] for row in rows)
    console.print_table((kind, "cases", *words), rows)
    click.echo(f"{kind}: {total} cases at {len(rows)} doors in {seconds:.0f} s\n")


if __name__ == "__main__":
    console.run(main)
