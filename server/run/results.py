"""A run's results on disk: configuration, rounds, reports, checkpoints, model, summary."""

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
from typing import Any

import torch
from flwr.common.logger import log
from torch import Tensor

from powerctl.durable import replace_file, replacing
from powerctl.errors import InvalidInput
from wattfed.server.run.checkpoints import Checkpoints
from wattfed.server.run.history import RoundRow, columns_of, finite
from wattfed.server.run.participants import Participants
from wattfed.server.run.recorded import is_finished, read_refusals
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.round.ledger import RefusedReply
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.state import State
from wattfed.strategies.target import Target


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
