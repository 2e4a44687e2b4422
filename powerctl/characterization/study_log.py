"""The log of a study: what it is of in the first line, then a line for each run, synced."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from powerctl.characterization.plan import Configuration, Run
from powerctl.characterization.results import Result
from powerctl.characterization.study import Study
from powerctl.durable import sync_folder
from powerctl.errors import InvalidInput, InvalidTable
from powerctl.fields import Count, build
from powerctl.json_lines import is_begun, open_locked, whole_lines, write_line
from powerctl.reading import RESULTS, parse_json, quoted, read_bytes

FORMAT = "powerctl-study"
VERSION = 1


class StudyLog:
    """Results in memory and on disc.

    Parameters
    ----------
    path : Path
        The file.
    identity : mapping
        What all results of a study have in common: machine, task, baseline, epochs.
    results : sequence of Result
        So far.
    file : FileIO, optional
        Open for more.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        results: Sequence[Result] = (),
        file: FileIO | None = None,
    ) -> None:
        self.path = path
        self.identity = dict(identity)
        self._results = list(results)
        self._file = file

    @classmethod
    def open(cls, path: Path, identity: Mapping[str, Any]) -> StudyLog:
        """Begin a study, or go on with one: with more levels or repetitions, but of the same.

        Raises
        ------
        InvalidInput
            If the file cannot be written, or is of something else; the message names what.
        InvalidTable
            If a line is damaged; an unfinished last one is cut off.
        """
        identity = json.loads(json.dumps(dict(identity)))
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_locked(path)
        try:
            content = file.readall()
            if is_begun(content, FORMAT):
                file.truncate(0)
                file.seek(0)
                write_line(file, 0, {"format": FORMAT, "version": VERSION, **identity}, path)
                sync_folder(path)
                return cls(path, identity, (), file)
            found, results, length = _parse(content, path)
            _check_same(found, identity, path)
            file.truncate(length)
            file.seek(length)
            return cls(path, found, results, file)
        except BaseException:
            file.close()
            raise

    @classmethod
    def read(cls, path: Path) -> StudyLog:
        """Look at a study, also at one that is being run."""
        content = read_bytes(path, RESULTS)
        identity, results, _ = _parse(content, path)
        return cls(path, identity, results)

    @property
    def results(self) -> tuple[Result, ...]:
        """All, in the order run."""
        return tuple(self._results)

    @property
    def baseline(self) -> Configuration:
        """Where the factors stay that do not vary."""
        return Configuration(**self.identity["baseline"])

    def study(self) -> Study:
        """The results, to be looked at."""
        return Study(self._results, self.baseline, self.identity["modes"])

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """The runs that have no result yet."""
        done = {(result.configuration, result.repetition) for result in self._results}
        return [run for run in runs if (run.configuration, run.repetition) not in done]

    def append(self, result: Result) -> None:
        """Keep one more; it is on the disc when this returns."""
        assert self._file is not None
        write_line(self._file, self._file.tell(), result.to_json(), self.path)
        self._results.append(result)

    def close(self) -> None:
        """Let go of the file and its lock."""
        if self._file is not None:
            self._file.close()
            self._file = None


def study_path(folder: Path) -> Path:
    """The log in the folder of a study."""
    return folder / "study.jsonl"


def _check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    for here, asked in (
        (found["facts"], wanted["facts"]),
        (found["baseline"], wanted["baseline"]),
        ({"epochs": found["epochs"]}, {"epochs": wanted["epochs"]}),
    ):
        for name in sorted({*here, *asked}):
            if here.get(name) != asked.get(name):
                raise InvalidInput(
                    f"{path}, line 1: the study is of {name} {here.get(name)!r}, not "
                    f"{asked.get(name)!r}; it can be extended by levels and repetitions, but for "
                    "this give another folder with --out"
                )


@dataclass(frozen=True)
class _Identity:
    """What the first line of a log must hold."""

    name: str
    facts: Mapping[str, Any]
    virtual: bool
    modes: Mapping[str, str]
    baseline: Configuration
    epochs: Count


def _parse(content: bytes, path: Path) -> tuple[dict[str, Any], list[Result], int]:
    lines, length = whole_lines(content)
    where = f"{path}, line 1"
    try:
        header = parse_json(lines[0], where)
        if header.pop("format") != FORMAT:
            raise KeyError("format")
        version = header.pop("version")
    except (InvalidInput, KeyError, TypeError, AttributeError, IndexError):
        raise InvalidInput(f"{where}: not a log of powerctl characterize") from None
    if version != VERSION:
        raise InvalidInput(
            f"{where}: the log has version {quoted(version)}, this powerctl reads {VERSION}"
        )
    build(_Identity, header, where)
    results = []
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path}, line {number}: damaged"
        try:
            results.append(Result.from_json(parse_json(line, where), where))
        except InvalidInput as error:
            raise InvalidTable(str(error)) from None
    return header, results, length
