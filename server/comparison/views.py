"""A run reduced to what the report shows of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from powerctl.modes import FloatArray, IntArray
from wattfed.server.comparison.measures import RunMeasures, measure_run
from wattfed.server.run.contender import Contender
from wattfed.server.run.history import FederationResult, RoundRow, totals
from wattfed.server.run.judging import Judgement, judge_result
from wattfed.strategies.protocol import RoundReport
from wattfed.strategies.target import Target

_TROUBLES = (
    *("reported", "power_violations", "budget_violations", "latency_violations"),
    *("late", "partial", "declined", "failed"),
)


@dataclass(frozen=True)
class Curve:
    """The target metric beside rounds, time and energy until then; arrays of shape (n,).

    Of the n rounds that were evaluated, and gave a number.
    """

    rounds: FloatArray
    time_s: FloatArray
    energy_j: FloatArray
    value: FloatArray

    @classmethod
    def of(cls, rows: Sequence[RoundRow]) -> Curve:
        """The curve of a history."""
        rows = [row for row in rows if row.value is not None and math.isfinite(row.value)]
        return cls(
            rounds=np.array([row.round for row in rows], dtype=float),
            time_s=np.array([row.clock_s for row in rows]),
            energy_j=np.array([row.total_energy_j for row in rows]),
            value=np.array([row.value for row in rows], dtype=float),
        )


@dataclass(frozen=True)
class Turn:
    """A client's part in a round: transfer, training, then waiting for the others.

    `used` is False where the update was lost, or came too late.
    """

    client: int
    transfer_s: float
    train_s: float
    waiting_s: float
    power_w: float
    modes: tuple[str, ...]
    used: bool


@dataclass(frozen=True)
class RoundView:
    """Who did what in one round, in the order of the clients."""

    number: int
    round_time_s: float
    deadline_s: float
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class RunView:
    """One run: its measures at each level, its curve, its clients, a round, and a judgement."""

    contender: Contender
    seed: int
    target: Target
    measures: tuple[RunMeasures, ...]
    curve: Curve
    times: IntArray
    troubles: Mapping[str, int]
    typical: RoundView | None
    judgement: Judgement


def run_view(result: FederationResult, n_clients: int, levels: Sequence[float]) -> RunView:
    """The view of a run over so many clients, measured at some levels, the easiest first."""
    entries = result.ledger.entries
    counts = result.participations
    return RunView(
        contender=Contender.of(result.config),
        seed=result.config.seed,
        target=result.target,
        measures=tuple(
            measure_run(result, n_clients, level) for level in result.target.easiest_first(levels)
        ),
        curve=Curve.of(result.rows),
        times=np.array([counts[client] for client in range(n_clients)]),
        troubles=totals(entries, _TROUBLES),
        typical=_typical_round(result),
        judgement=judge_result(result),
    )


def _typical_round(result: FederationResult) -> RoundView | None:
    """The round of median length; None if nobody ever trained."""
    entries = sorted(
        (entry for entry in result.ledger.entries if entry.reported),
        key=lambda entry: (entry.round_time_s, entry.round),
    )
    if not entries:
        return None
    entry = entries[len(entries) // 2]
    trained = [r for r in result.ledger.reports_of(entry.round) if r.minibatches]
    return RoundView(
        entry.round,
        entry.round_time_s,
        entry.deadline_s,
        tuple(_turn(report, entry.round_time_s) for report in trained),
    )


def _turn(report: RoundReport, round_time_s: float) -> Turn:
    busy_s = report.transfer_s + report.time_s
    waiting_s = 0.0 if report.lost else max(round_time_s - busy_s, 0.0)
    return Turn(
        client=report.client,
        transfer_s=report.transfer_s,
        train_s=report.time_s,
        waiting_s=waiting_s,
        power_w=report.energy_j / report.time_s,
        modes=report.modes,
        used=report.used and not report.lost,
    )
