"""What the report says: each run reduced to what is shown of it, and all of them arranged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from powerctl.modes import FloatArray, IntArray
from powerctl.statistics import Estimate, estimate
from wattfed.server.comparison.charts import (
    Chart,
    Series,
    Tick,
    line_chart,
    mean_of_curves,
    range_of,
    slug,
    ticks,
)
from wattfed.server.comparison.measures import RunMeasures, measure_run
from wattfed.server.comparison.table import Line, Table
from wattfed.server.comparison.verdict import Verdict, ranked, standings, verdict
from wattfed.server.run.contender import Contender, PolicyPair
from wattfed.server.run.history import FederationResult, RoundRow, totals
from wattfed.server.run.judging import RunJudgement, judge_result
from wattfed.strategies.protocol import RoundReport
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import Target

COLOURS = 9  # of the style sheet
_STRIPES = 100  # most bars in a picture of participations
_DASHES = {"maxn": "5 4", "preset": "8 3 2 3", "fastest": "2 3"}
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
    """A client's part in a round: transfer and overhead, training, then waiting for the others.

    `board` is its board's name, or its node's; `used` is False where the update was lost, or came
    too late.
    """

    client: int
    board: str
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
    """One run: its measures at each level, its curve, its clients, a round, and a judgement.

    `charged` says what its minibatches were charged as.
    """

    contender: Contender
    seed: int
    target: Target
    measures: tuple[RunMeasures, ...]
    curve: Curve
    times: IntArray
    troubles: Mapping[str, int]
    typical: RoundView | None
    judgement: RunJudgement
    charged: str


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
        charged=result.charged,
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
    called = result.participants
    return RoundView(
        entry.round,
        entry.round_time_s,
        entry.deadline_s,
        tuple(
            _turn(report, entry.round_time_s, called.name_of(report.client)) for report in trained
        ),
    )


def _turn(report: RoundReport, round_time_s: float, board: str) -> Turn:
    waiting_s = 0.0 if report.lost else max(round_time_s - report.round_s, 0.0)
    return Turn(
        client=report.client,
        board=board,
        transfer_s=report.transfer_s + report.overhead_s,
        train_s=report.time_s,
        waiting_s=waiting_s,
        power_w=report.energy_j / report.time_s,
        modes=report.modes,
        used=report.used and not report.lost,
    )


@dataclass(frozen=True)
class Look:
    """How a policy is drawn everywhere: a colour for its selection, a dash for its power policy."""

    colour: int
    dash: str


@dataclass(frozen=True)
class Standings:
    """The tables at one level of the target; `best` is None where one number of clients ran."""

    words: str
    equal: list[Line]
    best: list[Line] | None
    least: float
    most: float

    def position(self, ratio: float) -> float:
        """Where a ratio stands between the least and the most, in percent, on a log scale."""
        span = math.log(self.most / self.least)
        return round(100 * math.log(min(max(ratio, self.least), self.most) / self.least) / span, 1)


@dataclass(frozen=True)
class Part:
    """The runs of one contender, as the page below the tables shows them."""

    contender: Contender
    energy_j: Estimate
    train_j: float
    transfer_j: float
    waiting_j: float
    beside_j: float
    wasted_j: float
    fairness: Estimate
    stripes: list[float]
    never: float
    troubles: Mapping[str, int]
    typical: RoundView | None
    judgement: RunJudgement

    @property
    def round_slug(self) -> str:
        """What a file of its round is called."""
        return f"round-{slug(self.contender.policy)}"

    def name_among(self, has_numbers: bool) -> str:
        """Its policy, with the number of clients a round where that differs."""
        policy = self.contender.policy
        return f"{policy}, {self.contender.per_round}" if has_numbers else policy

    @property
    def energies(self) -> list[tuple[str, float]]:
        """All of a run's energy by its kind, in joules, mean over seeds."""
        return [
            ("training", self.train_j),
            ("transfer", self.transfer_j),
            ("waiting", self.waiting_j),
            ("beside", self.beside_j),
        ]


@dataclass(frozen=True)
class Content:
    """All that the report's page shows, as its template takes it."""

    config: RunConfig
    target: Target
    verdict: Verdict | None
    first: str
    settings: dict[str, object]
    commands: list[str]
    folder: str
    n_clients: int
    seeds: int
    wanted: int
    views: list[RunView]
    baseline: PolicyPair
    standings: list[Standings]
    charts: list[Chart]
    charts_of_numbers: list[Chart]
    parts: list[Part]
    looks: dict[str, Look]
    clients_in_stripe: int

    @property
    def most_energy_j(self) -> float:
        """Of a part, for the scale of the bars."""
        return max((part.energy_j.mean for part in self.parts), default=1.0) or 1.0

    @property
    def longest_round_s(self) -> float:
        """Of the rounds shown, for their common scale."""
        ends = [
            max(
                [part.typical.round_time_s, *(t.transfer_s + t.train_s for t in part.typical.turns)]
            )
            for part in self.parts
            if part.typical is not None
        ]
        return max(ends, default=1.0)

    @property
    def round_ticks(self) -> list[Tick]:
        """Seconds of the rounds' common scale, in percent of it."""
        end = self.longest_round_s
        return [Tick(round(100 * t / end, 2), f"{t:.10g}") for t in ticks(0.0, end, 6)]

    @property
    def has_numbers(self) -> bool:
        """Whether names need the number of clients a round behind them."""
        return self.standings[-1].best is not None

    @property
    def charged(self) -> str:
        """What a minibatch was charged as."""
        return " or ".join(dict.fromkeys(view.charged for view in self.views))


def arrange(
    views: Sequence[RunView],
    baseline: PolicyPair,
    *,
    config: RunConfig,
    settings: dict[str, object],
    commands: list[str],
    folder: str,
    seeds: int,
    wanted: int,
) -> Content:
    """The content of a page on some runs.

    Parameters
    ----------
    views : sequence of RunView
        The runs, at one level of the target for each table; the parts below show each policy's
        best number at the last.
    baseline : PolicyPair
        What ratios are to.
    config, settings, commands, folder, seeds, wanted
        As `Content` has them.
    """
    measures = [measure for view in views for measure in view.measures]
    target, levels = views[0].target, [measure.level for measure in views[0].measures]
    found = standings(measures)
    tables = [Table(one.measures, one.level, baseline) for one in found]
    names = [line.contender.policy for line in ranked(tables[-1])]
    several = len({view.contender.per_round for view in views}) > 1
    shown = [line.contender for line in tables[-1].at_best_numbers()]
    runs = {c: [view for view in views if view.contender == c] for c in shown}
    n_clients = len(views[0].times)
    return Content(
        views=list(views),
        baseline=baseline,
        verdict=verdict(measures, tables[-1]) if len(views) > 1 else None,
        first=names[0] if names else str(baseline),
        standings=[
            _standings(one.words, table, several) for one, table in zip(found, tables, strict=True)
        ],
        target=target,
        charts=target_charts(
            {c.policy: [view.curve for view in own] for c, own in runs.items()}, target, levels
        ),
        charts_of_numbers=_charts_of_numbers(tables[-1].at_equal_numbers()) if several else [],
        parts=[_part(contender, runs[contender]) for contender in shown],
        looks=_looks(views, baseline),
        n_clients=n_clients,
        clients_in_stripe=_stripe_width(n_clients),
        config=config,
        settings=settings,
        commands=commands,
        folder=folder,
        seeds=seeds,
        wanted=wanted,
    )


def _looks(views: Sequence[RunView], baseline: PolicyPair) -> dict[str, Look]:
    """By a policy's name; the baseline's selection has colour 0, a grey."""
    strategies = [baseline.strategy, *(view.contender.strategy for view in views)]
    order = list(dict.fromkeys(strategies))
    return {
        view.contender.policy: Look(
            order.index(view.contender.strategy) % COLOURS, _DASHES.get(view.contender.power, "")
        )
        for view in views
    }


def _standings(words: str, table: Table, several: bool) -> Standings:
    equal = table.at_equal_numbers()
    best = table.at_best_numbers() if several else None
    ends = [
        end
        for line in (*equal, *(best or ()))
        for estimate in (line.less_energy, line.less_time)
        for end in (estimate.mean, estimate.low, estimate.high)
        if math.isfinite(end) and 0.1 <= end <= 10  # the interval of two seeds can be huge
    ]
    return Standings(words, equal, best, min([0.8, *ends]) / 1.05, max([1.25, *ends]) * 1.05)


def target_charts(
    curves: Mapping[str, Sequence[Curve]], target: Target, levels: Sequence[float]
) -> list[Chart]:
    """The target over time, energy and rounds: a line for each name, the mean of its curves."""
    known = {name: [c for c in own if len(c.value)] for name, own in curves.items()}
    charts = []
    for title, x_label, field, unit in (
        ("Over virtual time", "seconds of the fleet", "time_s", 1.0),
        ("Over energy", "kilojoules of the fleet", "energy_j", 1e3),
        ("Over rounds", "rounds", "rounds", 1.0),
    ):
        series = [
            mean_of_curves(name, [(getattr(curve, field) / unit, curve.value) for curve in own])
            for name, own in known.items()
            if own
        ]
        y_range = range_of(series, levels, target)
        charts.append(line_chart(title, x_label, series, y_range, levels))
    return charts


def _charts_of_numbers(lines: Sequence[Line]) -> list[Chart]:
    """Energy and time to the target over the clients wanted a round, where all seeds got there."""
    policies: dict[str, list[Line]] = {}
    for line in lines:
        if line.reached == line.seeds:
            policies.setdefault(line.contender.policy, []).append(line)
    charts = []
    for title, field, unit in (
        ("Kilojoules to the target", "energy_j", 1e3),
        ("Seconds to the target", "time_s", 1.0),
    ):
        series = []
        for policy, own in policies.items():
            numbers = np.array([float(line.contender.per_round) for line in own])
            means = np.array([getattr(line, field).mean / unit for line in own])
            series.append(Series(policy, numbers, means, means, means))
        highest = max((float(s.high.max()) for s in series), default=0.0) or 1.0
        charts.append(line_chart(title, "clients a round", series, (0.0, highest)))
    return charts


def _part(contender: Contender, views: Sequence[RunView]) -> Part:
    def mean(field: str) -> float:
        return float(np.mean([getattr(view.measures[0], field) for view in views]))

    times = np.mean([view.times for view in views], axis=0)
    first = min(views, key=lambda view: view.seed)
    return Part(
        contender=contender,
        energy_j=estimate([view.measures[0].energy_j for view in views]),
        train_j=mean("train_energy_j"),
        transfer_j=mean("transfer_energy_j"),
        waiting_j=mean("wait_energy_j"),
        beside_j=mean("overhead_energy_j") + mean("supply_energy_j"),
        wasted_j=mean("wasted_energy_j"),
        fairness=estimate([view.measures[0].jain_fairness for view in views]),
        stripes=_stripes(times),
        never=float(np.mean([(view.times == 0).mean() for view in views])),
        troubles={name: sum(view.troubles[name] for view in views) for name in first.troubles},
        typical=first.typical,
        judgement=first.judgement,
    )


def _stripe_width(n_clients: int) -> int:
    return math.ceil(n_clients / _STRIPES)


def _stripes(times: np.ndarray) -> list[float]:
    """Mean participations of each client, or of neighbours where there are too many to draw."""
    width = _stripe_width(len(times))
    starts = range(0, len(times), width)
    return [float(times[start : start + width].mean()) for start in starts]
