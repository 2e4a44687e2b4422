"""The reported comparison of selection policies: settings are chosen, then all cells are run.

    python -m benchmarks.selection_grid --out runs/grid --seeds 10 --csv grid.csv
    python -m benchmarks.selection_grid --out runs/grid --only digits,digits-city --seeds 3
    python -m benchmarks.selection_grid --read grid.csv

What is compared stands in selection_grid.toml: tuning cells, on which each policy's number of
clients, power policy and parameters are chosen, and the reported cells, which have other seeds. All
runs of a cell have the same joules. A run is kept as soon as it has finished: the same command goes
on with the rest, and more seeds may be added. Times and energies are the fleet's on its virtual
clock, charged on the boards' twins; they are no Jetson's.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.cells import budget_by, limited, reference_of, rows_of
from benchmarks.selection_table import ENERGIES, TIME, print_tables, read_csv, spent, write_csv
from powerctl import console
from powerctl.errors import UnknownName
from powerctl.plugins import split_names
from powerctl.reading import read_toml
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import Comparison
from wattfed.server.comparison.measures import measures_of
from wattfed.server.comparison.running import Finished, end_with_parent, run_comparison
from wattfed.server.run.contender import Contender
from wattfed.strategies.run_config import RunConfig

GRID = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Policy:
    """What may be chosen for a policy; `cells` are those where it is reported, empty for all."""

    name: str
    per_round: tuple[int, ...]
    powers: tuple[str, ...] = ("maxn", "slack")
    variants: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Contenders in a cell: one process runs them one after the other.

    Attributes
    ----------
    folder : Path
        Of the runs, and of those by which their budget is found.
    options : mapping
        The cell.
    numbers : tuple of int
        Clients a round of random, by whose cost the budget is found.
    contenders : tuple of Contender
    seeds : tuple of int
    goes_on : bool
        Whether a run goes on past its target until its joules are spent.
    """

    folder: Path
    options: Mapping[str, Any]
    numbers: tuple[int, ...]
    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]
    goes_on: bool = False

    def run(self) -> list[dict[str, Any]]:
        """Run whatever the folder lacks; returns what each run took."""
        asked = self._asked(Contender("random", "maxn", 0), self.numbers)
        reference = reference_of(asked) if self.goes_on else reference_of(asked, len(self.seeds))
        budget_j = budget_by(self._run("reference", reference), reference)
        rows: list[dict[str, Any]] = []
        for one in self.contenders:
            asked = limited(self._asked(one, (one.per_round,)), budget_j, goes_on=self.goes_on)
            folder = self._run("cell", asked)
            found = (
                rows_of(folder, asked) if self.goes_on else map(vars, measures_of(folder, asked))
            )
            rows += ({"cell": self.folder.name, **row} for row in found)
        return rows

    def _asked(self, one: Contender, numbers: Sequence[int]) -> Comparison:
        options = {key.replace("-", "_"): value for key, value in self.options.items()}
        asked = Comparison.of(
            strategies=[one.strategy], power=[one.power], per_round=numbers, workers=1, **options
        )
        return replace(asked, seeds=self.seeds)

    def _run(self, name: str, comparison: Comparison) -> ComparisonFolder:
        folder = ComparisonFolder(self.folder / name)
        run_comparison(folder, comparison, 1, lambda *_: None, self._say)
        return folder

    def _say(self, done: Finished) -> None:
        config, outcome = done.config, done.failure or done.outcome
        click.echo(f"{self.folder.name} {config.run_name}: {outcome}", err=True)


class Grid:
    """The comparison of a file, its runs in a folder.

    Parameters
    ----------
    file : Path
        Tuning, policies and cells.
    out : Path
        The folder.
    jobs : int
        Cells at a time.
    """

    def __init__(self, file: Path, out: Path, jobs: int) -> None:
        content = read_toml(file)
        self.cells: Mapping[str, Mapping[str, Any]] = content["cells"]
        self._tuning, self._out, self._jobs = content["tuning"], out, jobs
        self._policies = [
            Policy(name, **{key.replace("-", "_"): tuple(value) for key, value in one.items()})
            for name, one in content["policies"].items()
        ]

    def choose(self) -> dict[str, Contender]:
        """The settings with which each policy does best on the tuning cells.

        First its number of clients, then its power policy, then its parameters.
        """
        best = {p.name: Contender(p.name, p.powers[0], p.per_round[0]) for p in self._policies}
        for settings in (_numbers, _powers, _variants):
            best = self._best({p.name: settings(p, best[p.name]) for p in self._policies})
        return best

    def run(self, cells: Sequence[str], seeds: int) -> list[dict[str, Any]]:
        """All runs of some cells, with the settings that were chosen."""
        best = self.choose()
        parts = []
        for cell in cells:
            here = [p.name for p in self._policies if not p.cells or cell in p.cells]
            contenders = tuple(best[name] for name in here)
            parts.append(
                Part(
                    self._out / "cells" / cell,
                    self.cells[cell],
                    (best["random"].per_round,),
                    contenders,
                    tuple(range(seeds)),
                    goes_on=True,
                )
            )
        return self._rows(parts)

    def _best(self, tried: Mapping[str, list[Contender]]) -> dict[str, Contender]:
        """Who holds the targets with the most seeds; of equals, of the least energy times time."""
        contenders = tuple(one for those in tried.values() if len(those) > 1 for one in those)
        numbers = next(p.per_round for p in self._policies if p.name == "random")
        first, n = self._tuning["first-seed"], self._tuning["seeds"]
        seeds = tuple(range(first, first + n))
        rows = self._rows(
            [
                Part(self._out / "tuning" / cell, self.cells[cell], numbers, contenders, seeds)
                for cell in (self._tuning["cells"] if contenders else ())
            ]
        )

        def rank(contender: Contender) -> tuple[int, float]:
            named = Contender.of(RunConfig(**contender._asdict()))
            own = [row for row in rows if named == _contender(row)]
            both = [[spent(row, field) for row in own] for field in (ENERGIES["charged"], TIME)]
            missed = sum(row["rounds_to_target"] is None for row in own)
            return -missed, -float(np.log(both).mean())

        return {
            name: max(those, key=rank) if len(those) > 1 else those[0]
            for name, those in tried.items()
        }

    def _rows(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        """What the runs of some cells took, so many cells at a time."""
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        jobs = min(self._jobs, len(parts))
        if jobs <= 1:
            return [row for part in parts for row in part.run()]
        with ProcessPoolExecutor(jobs, context, initializer=end_with_parent) as pool:
            try:
                return [row for rows in pool.map(Part.run, parts) for row in rows]
            except BaseException:  # nobody waits for the cells that go on
                for worker in multiprocessing.active_children():
                    worker.kill()
                raise


def _numbers(policy: Policy, best: Contender) -> list[Contender]:
    return [best._replace(per_round=number) for number in policy.per_round]


def _powers(policy: Policy, best: Contender) -> list[Contender]:
    return [best._replace(power=power) for power in policy.powers]


def _variants(policy: Policy, best: Contender) -> list[Contender]:
    return [best, *(best._replace(strategy=name) for name in policy.variants)]


def _contender(row: Mapping[str, Any]) -> Contender:
    return Contender(row["strategy"], row["power"], row["per_round"])


@click.command(help=__doc__)
@click.option("--out", default="runs/grid", show_default=True, help="Folder of the runs.")
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(1))
@click.option("--only", default="", metavar="CELL,...", help="Run these cells alone.")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Cells at once.")
@click.option("--file", default=str(GRID), show_default="selection_grid.toml", help="The grid.")
@click.option("--read", "table", metavar="CSV", help="Print the tables of a file; run nothing.")
@click.option("--csv", "csv_path", metavar="CSV", help="Also write the rows.")
def main(
    out: str, seeds: int, only: str, jobs: int, file: str, table: str | None, csv_path: str | None
) -> None:
    """Run the comparison, or show one."""
    if table:
        rows = read_csv(Path(table))
    else:
        grid = Grid(Path(file), Path(out), jobs)
        cells = split_names(only) or tuple(grid.cells)
        if unknown := set(cells) - set(grid.cells):
            raise UnknownName("cell", min(unknown), grid.cells)
        rows = grid.run(cells, seeds)
    if csv_path:
        write_csv(Path(csv_path), rows)
    print_tables(rows)


if __name__ == "__main__":
    console.run(main)
