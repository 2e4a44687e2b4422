"""One run of pace, round by round: how many clients, by when, how noisy, in which modes.

    python -m benchmarks.pace_run --png docs/images/pace.png

Draws what docs/selection.md shows, and tells what share of the joules that modes can save is saved.
A client's modes can save what its round takes at MAXN, waiting included, beyond the least of all
its modes. Charged on the boards' twins; it is no Jetson's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import click
import numpy as np
from numpy.random import Generator

from powerctl import console
from powerctl.durable import write_output
from powerctl.figures import BLUE, ORANGE, png_of
from powerctl.fulcrum.plans import TIME_RESERVE
from powerctl.modes import IntArray
from wattfed.server.engines.simulation import simulate
from wattfed.server.run.history import FederationResult, held_values
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.pace import Pace
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.run_config import RunConfig


@dataclass
class Seen:
    """What pace chose in a round.

    Attributes
    ----------
    noise : float
        (1 - rho) / rho: of so many clients' mean update half of the square is noise.
    reach : float
        How far a round's step reaches: c.
    possible_j, saved_j : float
        What the chosen clients' modes can save beside MAXN, and do.
    possible_in_time_j, saved_in_time_j : float
        Of those to whom the deadline leaves the time for their least energy.
    """

    clients: int
    deadline_s: float
    noise: float
    reach: float
    possible_j: float = 0.0
    saved_j: float = 0.0
    possible_in_time_j: float = 0.0
    saved_in_time_j: float = 0.0


@dataclass
class WatchedPace(Pace):
    """Pace, whose choices are written down."""

    seen: ClassVar[list[Seen]] = []

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """As pace does."""
        rho = self._learned.rho
        chosen = super().select(offers, k, server_round, rng)
        deadline_s = max((one.deadline_s for one in chosen), default=0.0)
        seen = Seen(len(chosen), deadline_s, (1 - rho) / rho, self._learned.reach)
        rows = np.searchsorted(offers.client, [one.client for one in chosen])
        self._add_savings(seen, offers, rows, deadline_s * (1 - TIME_RESERVE))
        self.seen.append(seen)
        return chosen

    def _add_savings(self, seen: Seen, offers: Offers, rows: IntArray, until_s: float) -> None:
        for row in rows:
            at = np.array([row])
            time_s, energy_j, maxn_s, maxn_j = (
                values[0] for power in ("slack", "maxn") for values in offers.choices(power, at)
            )
            left_s = until_s - offers.transfer_s[row]
            idle_w = offers.idle_power_w[row]
            whole_j = energy_j + idle_w * np.maximum(left_s - time_s, 0.0)
            racing_j = float(maxn_j[0] + idle_w * max(left_s - maxn_s[0], 0.0))
            in_time = time_s <= left_s + 1e-9
            possible_j = max(0.0, racing_j - float(whole_j.min()))
            saved_j = racing_j - float(np.where(in_time, whole_j, np.inf).min())
            seen.possible_j += possible_j
            seen.saved_j += saved_j
            if in_time[whole_j.argmin()]:
                seen.possible_in_time_j += possible_j
                seen.saved_in_time_j += saved_j


def picture(result: FederationResult, seen: Sequence[Seen]) -> bytes:
    """A PNG of four panels over the rounds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    held = [np.nan if value is None else value for value in held_values(result.rows)][1:]
    shares = [_percent(one.saved_j, one.possible_j) for one in seen]
    panels = (
        (f"{result.target.name}, held; and the reach c (dashed)", held),
        ("clients, and the noise B (dashed, right)", [one.clients for one in seen]),
        ("deadline (s)", [one.deadline_s for one in seen]),
        ("saved of what modes can save (%)", shares),
    )
    rounds = np.arange(1, len(seen) + 1)
    for axis, (name, values) in zip(figure.subplots(2, 2).ravel(), panels, strict=True):
        axis.plot(rounds, values, color=BLUE)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("round")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    figure.axes[0].plot(rounds, [one.reach for one in seen], color=ORANGE, linestyle="--")
    noise = figure.axes[1].twinx()
    noise.set_ylim(0, 30)
    noise.plot(rounds, [one.noise for one in seen], color=ORANGE, linestyle="--")
    return png_of(figure, dpi=100)


@click.command(help=__doc__)
@click.option("--task", default="digits", show_default=True)
@click.option("--fleet", default="hundred-jetsons", show_default=True)
@click.option("--per-round", default=10, show_default=True)
@click.option("--rounds", default=60, show_default=True)
@click.option("--local-epochs", default=5, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--png", type=click.Path(), help="Write the picture here.")
def main(png: str | None, **options: Any) -> None:
    """Run pace, and tell of it."""
    from benchmarks import pace_run  # by its name, as the run finds it, and not as __main__

    seen = pace_run.WatchedPace.seen
    seen.clear()
    with tempfile.TemporaryDirectory() as folder:
        alone = RunConfig(name="run", out_dir=folder, workers=1, unsupervised=True)
        watched = alone.changed(strategy="benchmarks.pace_run:WatchedPace", **options)
        result = simulate(watched)
        if png:
            write_output(png, picture(result, seen))
    saved = "saved of what modes can save (%)"
    header = ("round", "clients", "deadline (s)", "noise B", "reach c", saved)
    console.print_table(
        header,
        [
            (
                n,
                one.clients,
                one.deadline_s,
                one.noise,
                one.reach,
                _percent(one.saved_j, one.possible_j),
            )
            for n, one in enumerate(seen, start=1)
        ],
    )
    for where, saved, possible in (
        ("in all", "saved_j", "possible_j"),
        ("where the deadline leaves the time for it", "saved_in_time_j", "possible_in_time_j"),
    ):
        does_j, can_j = (sum(getattr(one, name) for one in seen) for name in (saved, possible))
        click.echo(f"saved of what modes can save, {where}: {_percent(does_j, can_j):.0f} %")


def _percent(part: float, whole: float) -> float:
    return 100 * part / max(whole, 1e-9)


if __name__ == "__main__":
    console.run(main)
