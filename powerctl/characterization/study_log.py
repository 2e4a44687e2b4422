"""The log of a study: what it is of in the first line, then a line for each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from powerctl.characterization.plan import Configuration, Run
from powerctl.characterization.results import Result
from powerctl.characterization.study import Study
from powerctl.errors import InvalidInput
from powerctl.fields import Count
from powerctl.json_lines import JsonLog, LogHeader


@dataclass(frozen=True)
class StudyHeader(LogHeader):
    """What all results of a study have in common.

    Attributes
    ----------
    name : str
        What runs on what, in one line.
    facts : mapping of str to str
        All that somebody who compares two studies must know of machine, software and data.
    virtual : bool
        Whether time and energy are a model's.
    modes : mapping of str to str
        The modes that have names; ``default`` is the board's.
    baseline : Configuration
        Where the factors stay that do not vary.
    epochs : int
        Of each run.
    """

    name: str
    facts: Mapping[str, Any]
    virtual: bool
    modes: Mapping[str, str]
    baseline: Configuration
    epochs: Count

    def check_same(self, other: StudyHeader, path: Path) -> None:
        """Raise `InvalidInput`, naming what differs, unless both are of the same study."""
        for here, asked in (
            (self.facts, other.facts),
            (asdict(self.baseline), asdict(other.baseline)),
            ({"epochs": self.epochs}, {"epochs": other.epochs}),
        ):
            for name in sorted({*here, *asked}):
                if here.get(name) != asked.get(name):
                    raise InvalidInput(
                        f"{path}, line 1: the study is of {name} {here.get(name)!r}, not "
                        f"{asked.get(name)!r}; it can be extended by levels and repetitions, but "
                        "for this give another folder with --out"
                    )


class StudyLog(JsonLog[StudyHeader, Result]):
    """The results of a study; it can be gone on with, by more levels or repetitions."""

    format, version, command = "powerctl-study", 1, "characterize"
    header_type = StudyHeader

    def study(self) -> Study:
        """The results, to be looked at."""
        return Study(self.entries, self.header.baseline, self.header.modes)

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """The runs that have no result yet."""
        done = {self._key(result) for result in self.entries}
        return [run for run in runs if (run.configuration, run.repetition) not in done]

    @staticmethod
    def _entry_json(entry: Result) -> dict[str, Any]:
        return entry.to_json()

    @staticmethod
    def _parse_entry(content: Any, where: str) -> Result:
        return Result.from_json(content, where)

    @staticmethod
    def _key(entry: Result) -> tuple[Configuration, int]:
        return entry.configuration, entry.repetition


def study_path(folder: Path) -> Path:
    """The log in the folder of a study."""
    return folder / "study.jsonl"
