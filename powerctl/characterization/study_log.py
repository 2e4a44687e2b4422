"""The log of a study: what it is of in the first line, then a line for each run, synced."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from powerctl.characterization.plan import Cell, Run
from powerctl.characterization.results import Result
from powerctl.characterization.study import Study
from powerctl.errors import InvalidInput
from powerctl.fields import Count, build
from powerctl.json_lines import JsonLog
from powerctl.reading import in_line, quoted


class StudyLog(JsonLog[Mapping[str, Any], Result]):
    """Results of a study in memory and on disc; its header is what they all have in common."""

    FORMAT = "powerctl-study"
    COMMAND = "powerctl characterize"

    @classmethod
    def open(cls, path: str | Path, header: Mapping[str, Any]) -> StudyLog:
        """Begin a study, or go on with one: with more levels or repetitions, but of the same."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return super().open(path, json.loads(json.dumps(dict(header))))

    @property
    def baseline(self) -> Cell:
        """Where the factors stay that do not vary."""
        return Cell(**self.header["baseline"])

    def study(self) -> Study:
        """The results, to be looked at."""
        return Study(self._entries, self.baseline, self.header["modes"])

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """The runs that have no result yet."""
        done = {(result.configuration, result.repetition) for result in self._entries}
        return [run for run in runs if (run.configuration, run.repetition) not in done]

    @staticmethod
    def header_json(header: Mapping[str, Any]) -> Mapping[str, Any]:
        """The header as it is."""
        return header

    @staticmethod
    def parse_header(content: dict[str, Any], where: str) -> Mapping[str, Any]:
        """The header of a first line, which has what `identity_of` gives."""
        build(_Identity, content, where)
        return content

    @staticmethod
    def check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
        """Raise `InvalidInput`, naming what differs, unless both are of the same study."""
        for here, asked in (
            (found["facts"], wanted["facts"]),
            (found["baseline"], wanted["baseline"]),
            ({"epochs": found["epochs"]}, {"epochs": wanted["epochs"]}),
        ):
            for name in sorted({*here, *asked}):
                if here.get(name) != asked.get(name):
                    was, now = quoted(here.get(name)), quoted(asked.get(name))
                    raise InvalidInput(
                        f"{path}, line 1: the study is of {in_line(name)} {was}, not {now}; it can "
                        "be extended by levels and repetitions, but for this give another folder "
                        "with --out"
                    )

    @staticmethod
    def entry_json(entry: Result) -> Mapping[str, Any]:
        """The result as it is."""
        return entry.to_json()

    @staticmethod
    def parse_entry(content: dict[str, Any], where: str) -> Result:
        """The result of a line."""
        return Result.from_json(content, where)


def study_path(folder: Path) -> Path:
    """The log in the folder of a study."""
    return folder / "study.jsonl"


@dataclass(frozen=True)
class _Identity:
    """What the first line of a log must hold."""

    name: str
    facts: Mapping[str, Any]
    virtual: bool
    modes: Mapping[str, str]
    baseline: Cell
    epochs: Count
