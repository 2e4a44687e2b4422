"""A run's results on disc: the files of its folder, written as it goes on, and read back."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from logging import WARNING
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from flwr.common.logger import log

from powerctl.durable import replace_file, replacing
from powerctl.errors import InvalidInput
from powerctl.fields import Count, Range, build, checked, parse_number
from powerctl.reading import NoFile, misread, parse_json, read_json, read_lines
from wattfed.server.run.checkpoints import Checkpoints
from wattfed.server.run.history import FederationResult, RoundRow, columns_of, finite, metric_of
from wattfed.server.run.participants import Participants
from wattfed.strategies.protocol import ClientNumber, Clock, RoundAssignment, RoundReport
from wattfed.strategies.round.ledger import Ledger, RefusedReply, RoundEntry
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.state import State
from wattfed.strategies.target import Target

if TYPE_CHECKING:
    from torch import Tensor

_Metric = Annotated[float, Range(-math.inf, math.inf, unknown=True)]


def placed(config: RunConfig) -> RunConfig:
    """A run without a name with one that is free: as usual, or with ``-2``, ``-3`` ... behind.

    A run that is to go on has the last of those that are there.
    """
    if config.name:
        return config
    base, out = config.run_name, Path(config.out_dir)
    names = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
    finished = list(itertools.takewhile(lambda name: is_finished(out / name), names))
    name = f"{base}-{len(finished) + 1}" if finished else base
    if config.resume and finished and not (out / name / "config.json").exists():
        name = finished[-1]
    return config if name == base else replace(config, name=name)


def rounds_saved(folder: Path) -> int | None:
    """How many rounds of a run are kept to go on from; None if it has no checkpoint."""
    return Checkpoints(folder / "checkpoints", ()).last_round()


class ResultsFolder:
    """A folder of ``config.json``, ``rounds.csv``, ``reports.jsonl``, ``summary.json`` and models.

    Every file is whole at any time, also after a loss of power: rounds and reports are appended
    after each round, the others are written beside and renamed. The summary comes last: where it
    is, the run is finished.

    Parameters
    ----------
    path : Path
        Created if need be.

    Attributes
    ----------
    rounds, reports : Path
        The two files that grow.
    refusals : Path
        A line for each reply that was refused; not there where none was.
    under_way : Path
        Who trains now; not there once the run has finished.
    target : Path
        What the run is judged by; not there where that is accuracy.
    participants : Path
        Who its clients are, and why some cannot take part.
    checkpoints : Checkpoints
        From which the run can go on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rounds, self.reports = path / "rounds.csv", path / "reports.jsonl"
        self.refusals = path / "refusals.jsonl"
        self.under_way = path / "round.json"
        self.target = path / "target.json"
        self.participants = path / "participants.json"
        self.checkpoints = Checkpoints(path / "checkpoints", (self.rounds, self.reports))
        with self._writing():
            self.checkpoints.folder.mkdir(parents=True, exist_ok=True)

    def begin(self, config: RunConfig) -> None:
        """Remove the files of an earlier run that was broken off, and write the configuration.

        Raises
        ------
        InvalidInput
            If the folder holds a finished run.
        """
        if is_finished(self.path):
            raise InvalidInput(
                f"{self.path} holds a finished run: give another name, go on with resume (and more "
                "rounds), or remove the folder"
            )
        if left := self.checkpoints.last_round():
            log(WARNING, "%s: in place of a run broken off after round %s", self.path, left)
        with self._writing():
            for old in (self.under_way, self.rounds, self.reports):
                old.unlink(missing_ok=True)
            for old in (self.target, self.participants, self.refusals):
                old.unlink(missing_ok=True)
            self.checkpoints.clear()
            _write_json(self.path / "config.json", config.to_flower())

    def go_on(self, config: RunConfig, state: State) -> None:
        """Remove what came after the state of a checkpoint; write how the run goes on."""
        with self._writing():
            (self.path / "summary.json").unlink(missing_ok=True)
            self.checkpoints.cut(state)
            if self.refusals.exists():
                before = [r for r in read_refusals(self.refusals) if r.round <= state["round"]]
                replace_file(self.refusals, "".join(map(_line, before)).encode())
            _write_json(self.path / "config.json", config.to_flower())

    def begin_round(self, server_round: int, assignments: Sequence[RoundAssignment]) -> None:
        """Who trains now; for those who look at the run while it goes on."""
        asked = {
            "round": server_round,
            "clients": [assignment.client for assignment in assignments],
            "deadline_s": max((a.deadline_s for a in assignments), default=math.inf),
            "began_unix_s": time.time(),
        }
        with self._writing():
            _write_json(self.under_way, asked)

    def write_participants(self, participants: Participants) -> None:
        """Who the clients are, and why some cannot take part now."""
        with self._writing():
            _write_json(self.participants, participants.record())

    def judged_by(self, target: Target) -> None:
        """What the run is judged by, which its first evaluation tells."""
        with self._writing():
            if target == Target():
                self.target.unlink(missing_ok=True)
            else:
                replace_file(self.target, (json.dumps(asdict(target)) + "\n").encode())

    def add_round(
        self, row: RoundRow, reports: Sequence[RoundReport], refusals: Sequence[RefusedReply] = ()
    ) -> None:
        """A line of the rounds so far, and one for each report and refusal; no limit is null."""
        with self._writing():
            columns = _columns_for(row, self.rounds)
            with open(self.rounds, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, columns, lineterminator="\n").writerow(row.flat())
            with open(self.reports, "a", encoding="utf-8") as file:
                for report in reports:
                    line = finite({"round": row.round, **vars(report)})
                    file.write(json.dumps(line) + "\n")
            if refusals:
                with open(self.refusals, "a", encoding="utf-8") as file:
                    file.writelines(map(_line, refusals))

    def finish(self, state: Mapping[str, Tensor], summary: Mapping[str, Any]) -> None:
        """The final model and the summary."""
        import torch  # a second, which those do not pay who only read

        with self._writing():
            self.under_way.unlink(missing_ok=True)
            with replacing(self.path / "model.pt") as file:
                torch.save({name: tensor.cpu() for name, tensor in state.items()}, file)
            _write_json(self.path / "summary.json", summary)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidInput(f"cannot write results to {self.path}: {error.strerror}") from None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    replace_file(path, (json.dumps(finite(content), indent=2) + "\n").encode())


def _line(refusal: RefusedReply) -> str:
    return json.dumps(vars(refusal)) + "\n"


def _columns_for(row: RoundRow, path: Path) -> list[str]:
    """The columns of a file of rounds, in which those of a round's new metrics are the last."""
    path.touch()
    with open(path, newline="", encoding="utf-8") as file:
        columns = next(csv.reader([file.readline()]), [])
        new = [column for column in columns_of([row]) if column not in columns]
        if new:
            head = io.StringIO()
            csv.writer(head, lineterminator="\n").writerow([*columns, *new])
            replace_file(path, (head.getvalue() + file.read()).encode())
    return [*columns, *new]


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
    rows = read_rows(folder)
    if not rows:
        raise InvalidInput(f"{folder / 'rounds.csv'}: the run has no rounds")
    entries = [row.entry for row in rows if row.entry is not None]
    reports = _read_reports(folder / "reports.jsonl", len(entries))
    refusals = [r for r in read_refusals(folder / "refusals.jsonl") if r.round <= len(entries)]
    ledger = Ledger(entries, reports, refusals)
    return FederationResult(read_config(folder), tuple(rows), ledger, folder)


def read_rows(folder: Path) -> list[RoundRow]:
    """The rounds of a run, without the reports; raises `InvalidInput` if a line is damaged."""
    path, target = folder / "rounds.csv", read_target(folder)
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
