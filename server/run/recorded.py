"""A run read back from its results folder."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from powerctl.errors import InvalidInput
from powerctl.fields import Count, Range, build, checked, parse_number
from powerctl.reading import NoFile, misread, parse_json, read_json, read_lines
from wattfed.server.run.history import FederationResult, RoundRow, metric_of
from wattfed.strategies.protocol import ClientNumber, Clock, RoundReport
from wattfed.strategies.round.ledger import Ledger, RefusedReply, RoundEntry
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import Target

_Metric = Annotated[float, Range(-math.inf, math.inf, unknown=True)]


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
        values = read_json(path)
    except NoFile:
        raise InvalidInput(f"{folder}: no run here, it has no config.json") from None
    with misread(f"{path}: not readable"):
        return RunConfig.from_flower(checked("it", values, Mapping[str, Any]))


def read_target(folder: Path) -> Target:
    """What a run is judged by: accuracy, where it has no ``target.json``.

    Raises
    ------
    InvalidInput
        If that is damaged.
    """
    path = folder / "target.json"
    try:
        return build(Target, read_json(path), f"{path}: not readable")
    except NoFile:
        return Target()


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
    head, *lines = read_lines(path) or [""]
    numbered = enumerate(lines, start=2)
    return [row_of(f"{path}, line {n}", head, line, target) for n, line in numbered]


def _read_reports(path: Path, rounds: int) -> list[tuple[int, RoundReport]]:
    """The reports of the rounds that are whole."""
    lines = enumerate(read_lines(path), start=1)
    reports = [report_of(f"{path}, line {n}", line) for n, line in lines]
    return [(server_round, report) for server_round, report in reports if server_round <= rounds]


def read_refusals(path: Path) -> list[RefusedReply]:
    """The replies that a run refused; none where there is no such file."""
    lines = enumerate(read_lines(path) if path.exists() else [], start=1)
    return [refusal_of(f"{path}, line {n}", line) for n, line in lines]


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
    with misread(f"{where}: damaged"):
        metrics = {metric_of(column): column for column in values}
        return RoundRow(
            round=parse_number("round", values["round"], Count),
            metrics={
                m: parse_number(column, values[column], _Metric)
                for m, column in metrics.items()
                if m is not None
            },
            clock_s=parse_number("clock_s", values["clock_s"], Clock),
            total_energy_j=parse_number("total_energy_j", values["total_energy_j"], Clock),
            entry=_entry(values) if "round_time_s" in values else None,
            target=target,
        )


def report_of(where: str, line: str) -> tuple[int, RoundReport]:
    """A round's number and a client's report from their line in ``reports.jsonl``.

    Raises
    ------
    InvalidInput
        If the line is damaged, with where it is.
    """
    where = f"{where}: damaged, not a client's report"
    values = dict(checked(where, parse_json(line, where), Mapping[str, Any]))
    number = checked(f"{where}: round", values.pop("round", None), Count)
    # JSON has no infinity and no NaN: an empty limit is infinite, an empty loss unknown
    filled = {key: math.inf if value is None else value for key, value in values.items()}
    if filled.get("loss") == math.inf:
        filled["loss"] = math.nan
    for key, value in filled.items():
        if isinstance(value, str):  # older versions kept what a client said as it was
            filled[key] = "".join(c if c.isprintable() else " " for c in value)
    return number, build(RoundReport, filled, where)


def refusal_of(where: str, line: str) -> RefusedReply:
    """A refusal from its line in ``refusals.jsonl``.

    Raises
    ------
    InvalidInput
        If the line is damaged, with where it is.
    """
    where = f"{where}: damaged, not a refusal"
    return build(RefusedReply, parse_json(line, where), where)


def _entry(values: Mapping[str, str]) -> RoundEntry:
    """A round's entry from the columns of a CSV."""
    hints = get_type_hints(RoundEntry, include_extras=True)
    found: dict[str, Any] = {
        name: parse_number(name, values[name], hint)
        for name, hint in hints.items()
        if name in values and name != "clients"
    }
    clients = values.get("clients", "").split()
    found["clients"] = tuple(parse_number("clients", one, ClientNumber) for one in clients)
    return build(RoundEntry, found, "round")
