"""What came of a run's rounds, client by client and round by round, from the clients' reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from wattfed.server.run.history import finite
from wattfed.strategies.protocol import RoundReport


@dataclass
class ClientAccount:
    """One client: how often it was asked, trained and declined, and its last training.

    `energy_j` is that of training in all rounds; `budget_left_j` is infinite without a budget.
    `name` is its board or its node. `trouble` says what went wrong in its last round, if something
    did; `unable` why it cannot take part now, if it cannot.
    """

    client: int
    name: str = ""
    asked: int = 0
    trained: int = 0
    declined: int = 0
    lost: int = 0
    violations: int = 0
    energy_j: float = 0.0
    budget_left_j: float = math.inf
    last_round: int = 0
    last: RoundReport | None = None
    trouble: str = ""
    unable: str = ""

    def enter(self, server_round: int, report: RoundReport) -> None:
        """A report of this client."""
        self.last_round = server_round
        self.declined += bool(report.decline)
        self.lost += bool(report.lost)
        self.violations += bool(_broken(report))
        self.energy_j += report.energy_j
        self.budget_left_j = report.budget_left_j
        self.trouble = trouble_of(report)
        if report.minibatches:
            self.trained += 1
            self.last = report

    @property
    def words(self) -> str:
        """Why it cannot take part now, else what went wrong in its last round; empty if nothing."""
        return self.unable or self.trouble

    @property
    def share_left(self) -> float:
        """Of its energy budget, between 0 and 1."""
        left_j = max(self.budget_left_j, 0.0)
        return left_j / (left_j + self.energy_j) if math.isfinite(left_j) and left_j else 0.0

    def record(self) -> dict[str, Any]:
        """For JSON; what there is not is null."""
        values = {key: value for key, value in vars(self).items() if key != "last"}
        last = self.last
        values["mode"] = last.modes[-1] if last and last.modes else ""
        for key in ("expected_time_s", "time_s", "expected_energy_j", "energy_j"):
            values[f"last_{key}"] = getattr(last, key) if last else None
        return finite(values)


@dataclass
class RoundWork:
    """A round's training as it was predicted and measured: the longest, and the energy of all."""

    expected_time_s: float = 0.0
    time_s: float = 0.0
    expected_energy_j: float = 0.0
    energy_j: float = 0.0

    def enter(self, report: RoundReport) -> None:
        """The report of a client that trained."""
        self.expected_time_s = max(self.expected_time_s, report.expected_time_s)
        self.time_s = max(self.time_s, report.time_s)
        self.expected_energy_j += report.expected_energy_j
        self.energy_j += report.energy_j


def trouble_of(report: RoundReport) -> str:
    """What went wrong with a client in a round, in a few words; empty if nothing did."""
    if report.lost:
        return f"update lost: {report.lost}"
    if report.decline:
        return f"declined: {report.decline}"
    if broken := _broken(report):
        return f"over its {' and '.join(broken)} limit"
    if not report.used:
        return "update came too late"
    if report.guard_steps:
        return f"stepped down: {report.guard_cause}"
    return f"stopped early: {report.stopped}" if report.stopped else ""


def _broken(report: RoundReport) -> list[str]:
    limits = (
        ("power", report.broke_power_limit),
        ("energy", report.broke_budget),
        ("latency", report.broke_latency),
    )
    return [name for name, is_broken in limits if report.minibatches and is_broken]
