"""A run read back from its results folder."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from powerctl.errors import InvalidInput
from wattfed.server.history import FederationResult, RoundRow, metric_of
from wattfed.server.participants import Participants
from wattfed.strategies.ledger import Ledger, Refusal, RoundEntry
from wattfed.strategies.protocol import RoundReport
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import Target


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a whole run: the summary is written last."""
    return (folder / "summary.json").is_file()


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run.

    Raises
    ------
    InvalidInput
        If the folder holds no run, or its ``config.json`` is damaged.
    """
    path = folder / "config.json"
    try:
        return RunConfig.from_flower(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InvalidInput(f"{folder}: no run here, it has no config.json") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: not readable: {error}") from None


def read_target(folder: Path) -> Target:
    """What a run is judged by: accuracy, where it has no ``target.json``.

    Raises
    ------
    InvalidInput
        If that is damaged.
    """
    path = folder / "target.json"
    try:
        return Target(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Target()
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"{path}: not readable: {error}") from None


def read_participants(folder: Path) -> Participants:
    """The clients of a run; an empty participants where older code has written none."""
    return Participants.read(folder / "participants.json")


def read_run(folder: Path) -> FederationResult:
    """A finished or broken-off run, equal to what it returned when it ran.

    Raises
    ------
    InvalidInput
        Naming the file and line that is damaged.
    """
    rows = _read_rows(folder / "rounds.csv", read_target(folder))
    if not rows:
        raise InvalidInput(f"{folder / 'rounds.csv'}: the run has no rounds")
    entries = [row.entry for row in rows if row.entry is not None]
    reports = _read_reports(folder / "reports.jsonl", len(entries))
    refusals = [r for r in read_refusals(folder / "refusals.jsonl") if r.round <= len(entries)]
    ledger = Ledger(entries, reports, refusals)
    return FederationResult(read_config(folder), tuple(rows), ledger, folder)


def _read_rows(path: Path, target: Target) -> list[RoundRow]:
    head, *lines = _whole_lines(path) or [""]
    numbered = enumerate(lines, start=2)
    return [row_of(f"{path}, line {n}", head, line, target) for n, line in numbered]


def _read_reports(path: Path, rounds: int) -> list[tuple[int, RoundReport]]:
    """The reports of the rounds that are whole."""
    lines = enumerate(_whole_lines(path), start=1)
    reports = [report_of(f"{path}, line {n}", line) for n, line in lines]
    return [(server_round, report) for server_round, report in reports if server_round <= rounds]


def read_refusals(path: Path) -> list[Refusal]:
    """The replies that a run refused; none where there is no such file."""
    lines = enumerate(_whole_lines(path) if path.exists() else [], start=1)
    return [refusal_of(f"{path}, line {n}", line) for n, line in lines]


def _whole_lines(path: Path) -> list[str]:
    """All lines but a last one that was broken off."""
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: not readable: {error}") from None


def row_of(where: str, head: str, line: str, target: Target) -> RoundRow:
    """A round from its line in ``rounds.csv``, below a head of column names.

    All columns that are not ours are metrics.

    Raises
    ------
    InvalidInput
        If the line is damaged, with where it is.
    """
    texts = next(csv.DictReader([head, line], restkey=""), {})
    values = {key: text for key, text in texts.items() if text}
    try:
        metrics = {metric_of(column): column for column in values}
        return RoundRow(
            round=int(values["round"]),
            metrics={m: float(values[column]) for m, column in metrics.items() if m is not None},
            clock_s=float(values["clock_s"]),
            total_energy_j=float(values["total_energy_j"]),
            entry=_entry(values) if "round_time_s" in values else None,
            target=target,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"{where}: damaged: {error}") from None


def report_of(where: str, line: str) -> tuple[int, RoundReport]:
    """A round's number and a client's report from their line in ``reports.jsonl``.

    Raises
    ------
    InvalidInput
        If the line is damaged, with where it is.
    """
    try:
        values = json.loads(line)
        return int(values.pop("round")), _report(values)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InvalidInput(f"{where}: damaged, not a client's report") from None


def refusal_of(where: str, line: str) -> Refusal:
    """A refusal from its line in ``refusals.jsonl``.

    Raises
    ------
    InvalidInput
        If the line is damaged, with where it is.
    """
    try:
        return Refusal(**json.loads(line))
    except (ValueError, TypeError):
        raise InvalidInput(f"{where}: damaged, not a refusal") from None


def _report(values: dict[str, Any]) -> RoundReport:
    """JSON has no infinity and no NaN: an empty limit is infinite, an empty loss unknown."""
    values["loss"] = math.nan if values["loss"] is None else values["loss"]
    filled = {key: math.inf if value is None else value for key, value in values.items()}
    return RoundReport(**{k: tuple(v) if isinstance(v, list) else v for k, v in filled.items()})


def _entry(values: Mapping[str, str]) -> RoundEntry:
    """A round's entry from the columns of a CSV."""
    hints = get_type_hints(RoundEntry)
    found: dict[str, Any] = {
        item.name: _number(values[item.name], hints[item.name])
        for item in fields(RoundEntry)
        if item.name in values
    }
    return RoundEntry(**{"clients": (), **found})


def _number(text: str, hint: Any) -> Any:
    return hint(text) if hint in (int, float) else tuple(map(int, text.split()))
