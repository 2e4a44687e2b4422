"""A run's results on disk: configuration, rounds, reports, models, summary."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from powerctl.errors import InvalidInput
from powerctl.rounds import RoundReport
from server.history import COLUMNS, RoundRow
from strategies.run_config import RunConfig

_KEPT_CHECKPOINTS = 3


class ResultsFolder:
    """A folder of ``config.json``, ``rounds.csv``, ``reports.jsonl``, ``summary.json`` and models.

    Every file is whole at any time: rounds and reports are appended after each round, the others
    are written beside and renamed. The summary comes last: where it is, the run is finished.

    Parameters
    ----------
    path : Path
        Created if need be; an earlier run's files in it are replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            files = [path / name for name in ("summary.json", "rounds.csv", "reports.jsonl")]
            for old in (*files, *path.glob("checkpoints/round-*.pt")):
                old.unlink(missing_ok=True)
        except OSError as error:
            raise InvalidInput(f"cannot write results to {path}: {error.strerror}") from None

    def write_config(self, config: RunConfig) -> None:
        """The run's configuration, as Flower's run config."""
        self._write_json("config.json", config.to_flower())

    def add_round(self, row: RoundRow) -> None:
        """A line of the rounds so far."""
        with open(self.path / "rounds.csv", "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if not file.tell():
                writer.writeheader()
            writer.writerow(row.flat())

    def add_reports(self, server_round: int, reports: Sequence[RoundReport]) -> None:
        """A round's client reports, a JSON object a line; infinite limits become null."""
        with open(self.path / "reports.jsonl", "a", encoding="utf-8") as file:
            for report in reports:
                line = _finite({"round": server_round, **vars(report)})
                file.write(json.dumps(line) + "\n")

    def save_checkpoint(self, server_round: int, state: Mapping[str, Tensor]) -> None:
        """The global model after a round; the last few are kept."""
        self._save(f"checkpoints/round-{server_round:04d}.pt", state)
        for old in sorted(self.path.glob("checkpoints/round-*.pt"))[:-_KEPT_CHECKPOINTS]:
            old.unlink()

    def finish(self, state: Mapping[str, Tensor], summary: Mapping[str, Any]) -> None:
        """The final model and the summary."""
        self._save("model.pt", state)
        self._write_json("summary.json", summary)

    def _save(self, name: str, state: Mapping[str, Tensor]) -> None:
        partial = self.path / f"{name}.partial"
        torch.save(dict(state), partial)
        os.replace(partial, self.path / name)

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        partial = self.path / f"{name}.partial"
        partial.write_text(json.dumps(_finite(content), indent=2) + "\n", encoding="utf-8")
        os.replace(partial, self.path / name)


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with NaN and infinity as null, which JSON can hold."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
