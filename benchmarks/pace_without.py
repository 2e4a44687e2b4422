"""What each part of pace is worth: pace, and pace without that part, on the cells it was tuned on.

    python -m benchmarks.pace_without --out runs/without --seeds 5

The cells, and the first seed, are the tuning cells' of selection_grid.toml. A run ends when it
holds its target; times and energies are charged on the boards' twins. The same command goes on
where it was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import numpy as np

from benchmarks.selection_grid import GRID, Part
from benchmarks.selection_table import ENERGIES, TIME, spent
from powerctl import console
from powerctl.modes import IntArray
from powerctl.reading import read_toml
from wattfed.server.run.contender import Contender
from wattfed.strategies.policies.pace import Learned, Pace, Pull
from wattfed.strategies.protocol import RoundReport
from wattfed.strategies.summaries import UpdateSummary


class NoSketches(Learned):
    """Nobody's pull is known, as where updates must not be seen one by one."""

    def pull(self, clients: IntArray, examples: IntArray) -> Pull:
        """As of clients that were never heard of."""
        self.clients, self.residuals = self.clients[:0], self.residuals[:0]
        return super().pull(clients, examples)


class NothingShared(Learned):
    """The mean of those who have been heard is taken for that of all."""

    def pull(self, clients: IntArray, examples: IntArray) -> Pull:
        """Without what they are all off by."""
        return super().pull(clients, examples)._replace(shared=0.0)


class NoDebt(Learned):
    """What one set lacked is not made up for."""

    def owe(self, pull: Pull, picks: IntArray) -> None:
        """Nothing."""


class NoReach(Learned):
    """Steps are taken to reach as far as they are taken to at first, a quarter."""

    reach = property(lambda self: 0.25)


@dataclass
class WithoutSketches(Pace):
    """Pace without sketches and debt."""

    _learned: Learned = field(default_factory=NoSketches, init=False, repr=False)


@dataclass
class WithoutUnheard(Pace):
    """Pace that thinks no worse of a set for those whom nobody has heard."""

    _learned: Learned = field(default_factory=NothingShared, init=False, repr=False)


@dataclass
class WithoutDebt(Pace):
    """Pace without debt."""

    _learned: Learned = field(default_factory=NoDebt, init=False, repr=False)


@dataclass
class WithoutReach(Pace):
    """Pace that does not learn how far steps reach."""

    _learned: Learned = field(default_factory=NoReach, init=False, repr=False)


@dataclass
class WithoutNovelty(Pace):
    """Pace that expects the unknown to err as the known do now: their median loss."""

    def observe(
        self,
        reports: Sequence[RoundReport],
        summaries: Mapping[int, UpdateSummary] = MappingProxyType({}),
    ) -> None:
        """Learn, but for the loss of those who are heard for the first time."""
        super().observe(reports, summaries)
        known = self._known.loss[np.isfinite(self._known.loss)]
        if len(known):
            self._learned.first_losses, self._learned.met = float(np.median(known)), 1.0


PARTS = {
    "pace": Contender("pace", "maxn", 10),
    "sketches": Contender("benchmarks.pace_without:WithoutSketches", "maxn", 10),
    "the unheard": Contender("benchmarks.pace_without:WithoutUnheard", "maxn", 10),
    "debt": Contender("benchmarks.pace_without:WithoutDebt", "maxn", 10),
    "reach of steps": Contender("benchmarks.pace_without:WithoutReach", "maxn", 10),
    "the loss of new clients": Contender("benchmarks.pace_without:WithoutNovelty", "maxn", 10),
    "number (5)": Contender("pace(at_least=5)", "maxn", 5),
    "number (10)": Contender("pace(at_least=10)", "maxn", 10),
    "price of a second": Contender("pace(price=0)", "maxn", 10),
    "its price (5 times)": Contender("pace(price=5)", "maxn", 10),
    "pacing": Contender("pace(racing=true)", "maxn", 10),
}


@click.command(help=__doc__)
@click.option("--out", default="runs/without", show_default=True, help="Folder of the runs.")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1))
def main(out: str, seeds: int) -> None:
    """Run them, and print what each took."""
    content = read_toml(GRID)
    first = content["tuning"]["first-seed"]
    its = tuple(range(first, first + seeds))
    for cell in content["tuning"]["cells"]:
        for name, contender in PARTS.items():
            part = Part(Path(out) / cell, content["cells"][cell], (3,), (contender,), its)
            _print(cell, name, part.run())


def _print(cell: str, name: str, rows: list[dict[str, Any]]) -> None:
    energy_j, time_s = (
        np.exp(np.mean([np.log(spent(row, kind)) for row in rows]))
        for kind in (ENERGIES["charged"], TIME)
    )
    held = sum(row["rounds_to_target"] is not None for row in rows)
    what = "pace" if name == "pace" else f"without {name}"
    told = f"{energy_j / 1e3:6.1f} kJ {time_s:5.0f} s"
    click.echo(f"{cell:8} {what:31} {told}, held {held} of {len(rows)}")


if __name__ == "__main__":
    console.run(main)
