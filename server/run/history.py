"""The history of a run: metrics beside the ledger of time and energy, and questions on it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powerctl.errors import InvalidInput, UnknownName
from powerctl.quantities import spoken
from wattfed.server.run.participants import Participants
from wattfed.strategies.round.ledger import Ledger, RoundEntry
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import Target

_COSTS = (
    *("clock_s", "total_energy_j"),
    *(item.name for item in fields(RoundEntry) if item.name != "round"),
    "energy_j",
)
_OURS = {"round", *_COSTS}
# what `wattfed top --json` tells of a round beside its columns
_TRAINING = {
    *("training_time_s", "training_expected_time_s"),
    *("training_energy_j", "training_expected_energy_j"),
}
_METRIC = "metric:"
HELD = 3  # evaluations whose mean a run holds: one alone may be luck
TROUBLES = (
    ("power_violations", "over power"),
    ("budget_violations", "over energy"),
    ("latency_violations", "over latency"),
    ("declined", "declined"),
    ("failed", "failed"),
    ("rejected", "rejected"),
    ("late", "late"),
    ("dropped", "dropped"),
    ("guarded", "stepped down"),
    ("went_back", "went back"),
)
"""Fields of a round's entry, summed in a run's summary, that count what went wrong."""
_SUMMED = (
    *("train_energy_j", "transfer_energy_j", "wait_energy_j", "wasted_energy_j"),
    *("power_violations", "budget_violations", "latency_violations", "inference_energy_j"),
    *("guarded", "late", "declined", "failed", "rejected", "stale", "dropped"),
    *("overhead_energy_j", "supply_energy_j", "others_energy_j", "went_back"),
)
_PARTIAL = ("partial", "partial")  # which summaries do not have

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class RoundRow:
    """One round's metrics, and the fleet's virtual time and energy until its end.

    Round 0 is the initial model; it has no ledger entry. `metrics` are all numbers of the round's
    evaluation by their names, none where there was none; the run is judged by its `target`.
    """

    round: int
    metrics: Mapping[str, float]
    clock_s: float
    total_energy_j: float
    entry: RoundEntry | None = None
    target: Target = field(default_factory=Target)

    def __post_init__(self) -> None:
        for name in self.metrics:
            if not (name and name.isprintable()):
                raise InvalidInput(f"metric {name!r}: a name must be printable text, in one line")

    @property
    def value(self) -> float | None:
        """The target metric; None where it was not evaluated."""
        return self.metrics.get(self.target.name)

    def flat(self) -> dict[str, Any]:
        """The round in the columns of the results' CSV, the target before the other metrics."""
        names = sorted(self.metrics, key=lambda name: name != self.target.name)
        row: dict[str, Any] = {
            "round": self.round,
            **{column_of(name): self.metrics[name] for name in names},
            "clock_s": self.clock_s,
            "total_energy_j": self.total_energy_j,
        }
        if self.entry is not None:
            row.update(vars(self.entry), energy_j=self.entry.energy_j)
            row["clients"] = " ".join(map(str, self.entry.clients))
        return row


def columns_of(rows: Sequence[RoundRow]) -> list[str]:
    """The columns of the results' CSV for some rounds."""
    metrics = [column for row in rows for column in row.flat() if column not in _OURS]
    return ["round", *dict.fromkeys(metrics), *_COSTS]


def column_of(metric: str) -> str:
    """The column of a metric: its name, or marked as a metric where the name has another use."""
    is_taken = metric in _OURS | _TRAINING or metric.startswith(_METRIC)
    return f"{_METRIC}{metric}" if is_taken else metric


def metric_of(column: str) -> str | None:
    """The metric that a column holds; None if it is one of ours."""
    return None if column in _OURS else column.removeprefix(_METRIC)


@dataclass(frozen=True, repr=False)
class FederationResult:
    """A finished run: its history, its ledger with all reports, and where the files are."""

    config: RunConfig
    rows: tuple[RoundRow, ...]
    ledger: Ledger
    folder: Path

    @property
    def target(self) -> Target:
        """The metric that the run is judged by."""
        return self.rows[-1].target

    @property
    def participants(self) -> Participants:
        """Who its clients are, as its folder tells."""
        return Participants.of_run(self.folder)

    @property
    def charged(self) -> str:
        """What a minibatch was charged as, and what that is from, as its folder tells."""
        return self.participants.charged_words(self.config)

    @property
    def minibatches(self) -> list[int]:
        """Minibatches trained in each round."""
        return [
            sum(report.minibatches for report in self.ledger.reports_of(entry.round))
            for entry in self.ledger.entries
        ]

    @property
    def participations(self) -> Counter[int]:
        """How often each client trained."""
        return Counter(report.client for _, report in self.ledger.reports if report.minibatches)

    def to_pandas(self, what: str = "rounds") -> DataFrame:
        """The run as a table of pandas, with the columns of the files in its folder.

        Parameters
        ----------
        what : {"rounds", "reports"}
            A row for each round, as in ``rounds.csv``, or for each client's report in each round,
            as in ``reports.jsonl``.
        """
        if what == "rounds":
            return data_frame([row.flat() for row in self.rows], columns_of(self.rows))
        if what == "reports":
            reports = self.ledger.reports
            return data_frame({"round": number, **vars(report)} for number, report in reports)
        raise UnknownName("table of a run", what, ("rounds", "reports"))

    def __repr__(self) -> str:
        last = self.rows[-1]
        return (
            f"<{self.config.run_name}: {last.round} rounds, "
            f"{self.target.name} {self.target.printed(last.value)}, "
            f"{spoken(last.clock_s, 's')} and {spoken(last.total_energy_j, 'J')} of the fleet, "
            f"in {self.folder}>"
        )


@dataclass(frozen=True)
class Spending:
    """What a run took until it held a level of its target metric (or until its end).

    Its energy is the product of minibatches, joules per trained minibatch, and one plus the share
    of all else: so the ratio of two runs' energies splits into three factors exactly.
    """

    reached: bool
    rounds: int
    time_s: float
    energy_j: float
    train_energy_j: float
    minibatches: int

    @property
    def minibatch_j(self) -> float:
        """Joules of training per trained minibatch."""
        return self.train_energy_j / max(self.minibatches, 1)

    @property
    def waiting_factor(self) -> float:
        """All energy over training energy."""
        return self.energy_j / self.train_energy_j if self.train_energy_j else 1.0


def last_metrics(rows: Sequence[RoundRow]) -> Mapping[str, float]:
    """The metrics of the last evaluation; none if there was none."""
    return next((row.metrics for row in reversed(rows) if row.metrics), {})


def final_value(rows: Sequence[RoundRow]) -> float | None:
    """The target metric as it was evaluated last; None if it never was."""
    return last_metrics(rows).get(rows[-1].target.name)


def best_value(rows: Sequence[RoundRow]) -> float | None:
    """The best value of the target metric in a history; None if it was never evaluated."""
    return rows[-1].target.best(row.value for row in rows)


def held_values(rows: Sequence[RoundRow]) -> list[float | None]:
    """What a run holds at each round: the mean of the target over the last three evaluations.

    None in rounds without an evaluation, and before there are three.
    """
    held: list[float | None] = []
    last: list[float] = []
    for row in rows:
        if row.value is not None:
            last = [*last, row.value][-HELD:]
        is_known = row.value is not None and len(last) == HELD
        held.append(math.fsum(last) / HELD if is_known else None)
    return held


def holds(rows: Sequence[RoundRow], levels: Sequence[float]) -> bool:
    """Whether a run holds all of some levels after its last round; not if there are none."""
    evaluated = (row for row in reversed(rows) if row.value is not None)
    held = held_values([*islice(evaluated, HELD)][::-1]) if rows[-1].value is not None else []
    target = rows[-1].target
    return bool(held and levels) and all(target.reached(held[-1], level) for level in levels)


def best_held(rows: Sequence[RoundRow]) -> float | None:
    """The best that a run held at any time; None with fewer than three evaluations."""
    best = rows[-1].target.best(held_values(rows))
    return best if best is not None and math.isfinite(best) else None


def held_by_all(runs: Sequence[Sequence[RoundRow]], level: float | None = None) -> float | None:
    """A level of the target, or the best that all of some runs held if one of them fell short.

    None if one of them holds nothing.
    """
    held = [best_held(rows) for rows in runs]
    known = [value for value in held if value is not None]
    if len(known) < len(held):
        return None
    asked = [] if level is None else [level]
    return runs[0][-1].target.easiest_first([*known, *asked])[0]


def goal_levels(config: RunConfig, target: Target) -> list[float]:
    """The levels of its goal that a run was to reach, the easiest first; none without a goal."""
    return target.easiest_first(config.goal.levels) if config.goal else []


def spending_to(rows: Sequence[RoundRow], minibatches: Sequence[int], level: float) -> Spending:
    """What was spent until a run first held a level of its target metric.

    Parameters
    ----------
    rows : sequence of RoundRow
        A run's history, round 0 first.
    minibatches : sequence of int
        Minibatches trained in each of the rounds 1, 2, ...
    level : float
        Of the target metric; if it was never held, the whole run is counted.
    """
    pairs = zip(rows, held_values(rows), strict=True)
    last = next((row for row, value in pairs if row.target.reached(value, level)), None)
    end = last or rows[-1]
    entries = [row.entry for row in rows if row.entry is not None and row.round <= end.round]
    return Spending(
        reached=last is not None,
        rounds=end.round,
        time_s=end.clock_s,
        energy_j=end.total_energy_j,
        train_energy_j=sum(entry.train_energy_j for entry in entries),
        minibatches=sum(minibatches[: end.round]),
    )


def troubles_of(entry: RoundEntry | None) -> str:
    """What went wrong in a round, such as "1 declined, 2 late"; empty if nothing did."""
    counts = [(getattr(entry, key, 0), what) for key, what in (*TROUBLES, _PARTIAL)]
    return ", ".join(f"{count} {what}" for count, what in counts if count)


def totals(entries: Iterable[RoundEntry], names: Iterable[str]) -> dict[str, Any]:
    """Sums of some fields of a ledger's entries, by name."""
    entries = list(entries)
    return {name: sum(getattr(entry, name) for entry in entries) for name in names}


def summary(
    config: RunConfig, rows: Sequence[RoundRow], ledger: Ledger, charged: Sequence[str] = ()
) -> dict[str, object]:
    """A run in a few numbers; times and energies are the fleet's own.

    `charged` is what `Participants` have of it.
    """
    entries = ledger.entries
    parts = [text.removesuffix(")").partition(" (") for text in charged]
    names, origins = (" or ".join(dict.fromkeys(part[i] for part in parts)) for i in (0, 2))
    return {
        "task": config.task,
        "charged_workload": names or config.workload,
        **({"charged_from": origins} if origins else {}),
        "strategy": config.strategy,
        "power": config.power,
        "rounds": len(entries),
        **_judgement(rows),
        "virtual_time_s": ledger.clock_s,
        "energy_j": ledger.energy_j,
        **totals(entries, _SUMMED),
    }


def _judgement(rows: Sequence[RoundRow]) -> dict[str, object]:
    """How good the model became: accuracy by its name, and any other metrics in a general form."""
    metrics = last_metrics(rows)
    told: dict[str, object] = {}
    if "accuracy" in metrics:
        accuracies = (row.metrics.get("accuracy") for row in rows)
        told = {
            "final_accuracy": metrics["accuracy"],
            "best_accuracy": Target().best(accuracies),
        }
    if rows[-1].target == Target() and metrics.keys() == {"accuracy", "loss"}:
        return told
    return {
        **told,
        "target": asdict(rows[-1].target),
        "final": final_value(rows),
        "best": best_value(rows),
        "metrics": dict(metrics),
    }


def spent_j(rows: Sequence[RoundRow], accounting: str) -> list[float]:
    """The joules that a run has spent after each of its rounds, in an accounting of energy."""
    beside_j = accumulate(
        row.entry.accounted_j(accounting) - row.entry.energy_j if row.entry else 0.0 for row in rows
    )
    return [row.total_energy_j + more_j for row, more_j in zip(rows, beside_j, strict=True)]


def spent_budgets(config: RunConfig, rows: Sequence[RoundRow]) -> dict[str, float]:
    """The budgets of a run that are spent after its last round, by their unit: J or s."""
    spent = {"s": (config.budget_s, rows[-1].clock_s)}
    if config.budget_j:
        spent["J"] = (config.budget_j, spent_j(rows, config.accounting)[-1])
    return {unit: budget for unit, (budget, so_far) in spent.items() if 0 < budget <= so_far}


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with NaN and infinity as null, which JSON can hold."""
    return {
        key: finite(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for key, value in values.items()
    }


def data_frame(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> DataFrame:
    """A table of rows; raises `InvalidInput` where pandas is not installed."""
    try:
        from pandas import DataFrame
    except ImportError:
        raise InvalidInput("to_pandas() needs pandas: pip install 'wattfed[pandas]'") from None
    return DataFrame(list(rows), columns=columns)
