"""A run's results on disk: configuration, rounds, reports, checkpoints, model, summary."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from powerctl.durable import replace_file, replacing
from powerctl.errors import InvalidInput
from wattfed.server.checkpoints import Checkpoints
from wattfed.server.history import RoundRow, columns_of, finite
from wattfed.server.roster import Roster
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.state import State
from wattfed.strategies.target import Target


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
    under_way : Path
        Who trains now; not there once the run has finished.
    target : Path
        What the run is judged by; not there where that is accuracy.
    roster : Path
        Who its clients are, and why some cannot take part.
    checkpoints : Checkpoints
        From which the run can go on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rounds, self.reports = path / "rounds.csv", path / "reports.jsonl"
        self.under_way = path / "round.json"
        self.target = path / "target.json"
        self.roster = path / "roster.json"
        self.checkpoints = Checkpoints(path / "checkpoints", (self.rounds, self.reports))
        with self._writing():
            self.checkpoints.folder.mkdir(parents=True, exist_ok=True)

    def begin(self, config: RunConfig) -> None:
        """Remove an earlier run's files, and write the run's configuration."""
        with self._writing():
            for old in (self.path / "summary.json", self.under_way, self.rounds, self.reports):
                old.unlink(missing_ok=True)
            self.target.unlink(missing_ok=True)
            self.roster.unlink(missing_ok=True)
            self.checkpoints.clear()
            _write_json(self.path / "config.json", config.to_flower())

    def go_on(self, config: RunConfig, state: State) -> None:
        """Remove what came after the state of a checkpoint; write how the run goes on."""
        with self._writing():
            (self.path / "summary.json").unlink(missing_ok=True)
            self.checkpoints.cut(state)
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

    def write_roster(self, roster: Roster) -> None:
        """Who the clients are, and why some cannot take part now."""
        with self._writing():
            _write_json(self.roster, roster.record())

    def judged_by(self, target: Target) -> None:
        """What the run is judged by, which its first evaluation tells."""
        with self._writing():
            if target == Target():
                self.target.unlink(missing_ok=True)
            else:
                replace_file(self.target, (json.dumps(asdict(target)) + "\n").encode())

    def add_round(self, row: RoundRow, reports: Sequence[RoundReport]) -> None:
        """A line of the rounds so far, and one for each client's report; no limit becomes null."""
        with self._writing():
            columns = _columns_for(row, self.rounds)
            with open(self.rounds, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, columns, lineterminator="\n").writerow(row.flat())
            with open(self.reports, "a", encoding="utf-8") as file:
                for report in reports:
                    line = finite({"round": row.round, **vars(report)})
                    file.write(json.dumps(line) + "\n")

    def finish(self, state: Mapping[str, Tensor], summary: Mapping[str, Any]) -> None:
        """The final model and the summary."""
        with self._writing():
            self.under_way.unlink(missing_ok=True)
            with replacing(self.path / "model.pt") as file:
                torch.save(dict(state), file)
            _write_json(self.path / "summary.json", summary)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidInput(f"cannot write results to {self.path}: {error.strerror}") from None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    replace_file(path, (json.dumps(finite(content), indent=2) + "\n").encode())


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
