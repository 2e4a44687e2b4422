"""The problem of `powerctl solve`, as flags: which it is follows from the roles that are given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from powerctl.commands.options import Command
from powerctl.console import Quantity
from powerctl.quantities import parse_sizes

if TYPE_CHECKING:
    from powerctl.fulcrum.problems import Problem

ROLES = ("train", "infer", "background")

Sizes = Callable[[str, "tuple[int, ...] | None"], tuple[int, ...]]


@dataclass(frozen=True)
class AskedProblem:
    """What a command line says of a problem; None where it does not say."""

    train: str | None
    infer: str | None
    background: str | None
    power_w: float
    rate_hz: float | None
    latency_s: float | None
    batch: str | None
    background_batch: str | None
    background_latency_s: float | None
    energy_j: float
    objective: str | None
    guard: bool

    @property
    def roles(self) -> dict[str, str]:
        """What runs in each role that is given: a workload, or a table of it."""
        return {role: what for role in ROLES if (what := getattr(self, role)) is not None}

    def check(self) -> None:
        """Raise `UsageError` for flags that make no problem together."""
        if not self.train and not self.infer:
            raise click.UsageError("give --train, --infer or both: what runs")
        if self.background and not (self.infer and not self.train):
            raise click.UsageError("--background goes with --infer, and without --train")
        if self.infer and (self.rate_hz is None or self.latency_s is None):
            raise click.UsageError("--infer needs --rate and --latency: what it has to serve")
        for flag, given, needed in (
            ("--rate", self.rate_hz, self.infer),
            ("--latency", self.latency_s, self.infer),
            ("--batch", self.batch, self.infer),
            ("--objective", self.objective, self.train and self.infer),
            ("--background-batch", self.background_batch, self.background),
            ("--background-latency", self.background_latency_s, self.background),
        ):
            if given is not None and not needed:
                raise click.UsageError(f"{flag} means nothing here: {_NEEDS[flag]}")

    def problem(self, sizes: Sizes) -> Problem:
        """The problem.

        Parameters
        ----------
        sizes : callable
            From a role and the batch sizes asked for to those that can be measured.
        """
        from powerctl.fulcrum.problems import Concurrent, InferAlone, TrainAlone, TwoInferences

        if self.rate_hz is None or self.latency_s is None:
            return TrainAlone(self.power_w, energy_limit_j=self.energy_j)
        infer = sizes("infer", _sizes(self.batch, "--batch"))
        served = (self.power_w, self.rate_hz, self.latency_s, infer)
        if self.background:
            return TwoInferences(
                *served,
                sizes("background", _sizes(self.background_batch, "--background-batch")),
                self.background_latency_s or math.inf,
                guard=self.guard,
                energy_limit_j=self.energy_j,
            )
        if not self.train:
            return InferAlone(*served, energy_limit_j=self.energy_j)
        return Concurrent(
            *served, self.objective or "rate", guard=self.guard, energy_limit_j=self.energy_j
        )


_NEEDS = {
    "--rate": "give --infer",
    "--latency": "give --infer",
    "--batch": "give --infer",
    "--objective": "give --train and --infer",
    "--background-batch": "give --background",
    "--background-latency": "give --background",
}


def _sizes(text: str | None, what: str) -> tuple[int, ...] | None:
    return None if text is None else tuple(sorted(parse_sizes(text, what)))


def with_problem(command: Command) -> Command:
    """Give a command the flags of a problem; it receives them, checked, as `asked`."""

    @click.option("--train", help="What trains: a workload, or its table (.csv, .jsonl).")
    @click.option("--infer", help="What serves requests: a workload, or its table.")
    @click.option("--background", help="An inference that can wait, beside --infer.")
    @click.option(
        "--power-limit",
        "--power",
        "power_w",
        type=Quantity("power"),
        required=True,
        help="At most: 30, 30W.",
    )
    @click.option("--rate", "rate_hz", type=Quantity("rate"), help="Requests a second: 60, 90/min.")
    @click.option(
        "--latency", "latency_s", type=Quantity("time"), help="Of a request at most: 100ms."
    )
    @click.option(
        "--batch",
        show_default="of the table, or 1,4,16,32,64",
        help="Batch sizes of --infer to choose from.",
    )
    @click.option("--background-batch", show_default="as --batch", help="Those of --background.")
    @click.option(
        "--background-latency",
        "background_latency_s",
        type=Quantity("time"),
        help="Of a batch of --background at most: 500ms.",
    )
    @click.option(
        "--energy-limit",
        "--energy",
        "energy_j",
        type=Quantity("energy"),
        default=math.inf,
        show_default="none",
        help="At most: 3, 3J, 2kJ; of a minibatch or batch alone, of a cycle for two.",
    )
    @click.option(
        "--objective",
        type=click.Choice(["rate", "count"]),
        show_default="rate",
        help="Most training a second, or a cycle as published.",
    )
    @click.option(
        "--guard/--no-guard",
        default=True,
        show_default=True,
        help="Latency counts a running minibatch of the other.",
    )
    @wraps(command)
    def run(**given: Any) -> None:
        asked = AskedProblem(**{name: given.pop(name) for name in AskedProblem.__annotations__})
        asked.check()
        command(asked=asked, **given)

    return run
