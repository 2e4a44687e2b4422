"""What a folder of results holds: its runs and comparisons, how far each is, and how large."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from powerctl.errors import InvalidInput, PowerctlError, UnknownName
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import WHERE
from wattfed.server.run.checkpoints import Checkpoints
from wattfed.server.run.contender import Contender
from wattfed.server.run.history import FederationResult, data_frame, final_value
from wattfed.server.run.results import is_finished, read_config, read_rows, read_run
from wattfed.strategies.run_config import changes_between

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Stored:
    """A run, or a comparison of many, in a folder of results.

    Attributes
    ----------
    name : str
        Its path below the folder of results.
    path : Path
        Its own folder.
    is_comparison : bool
        Whether it holds many runs.
    """

    name: str
    path: Path
    is_comparison: bool

    @property
    def began_s(self) -> float:
        """When it began, as a Unix time."""
        file = "comparison.json" if self.is_comparison else "config.json"
        return (self.path / file).stat().st_mtime

    @property
    def size_bytes(self) -> int:
        """What all of its files take."""
        folders = os.walk(self.path)
        return sum(os.lstat(os.path.join(at, file)).st_size for at, _, fs in folders for file in fs)

    @property
    def runs(self) -> list[Path]:
        """The folders of its finished runs, or its own."""
        if not self.is_comparison:
            return [self.path]
        return sorted(path for path in self.path.glob("runs/*") if is_finished(path))

    def told(self) -> dict[str, object]:
        """How far it is, and what of; a damaged one tells what is wrong with it."""
        try:
            return self._told_comparison() if self.is_comparison else self._told_run()
        except PowerctlError as error:
            return {"state": "damaged", "what": str(error)}

    def delete(self) -> None:
        """Remove all of its files.

        Raises
        ------
        InvalidInput
            If it is a link, another process writes it, or it cannot be removed.
        """
        if self.path.is_symlink():
            raise InvalidInput(f"{self.path} is a link; remove it where it leads to")
        try:
            if self.is_comparison:
                with ComparisonFolder(self.path).held():
                    shutil.rmtree(self.path)
            elif (self.path / "checkpoints").is_dir():
                with Checkpoints(self.path / "checkpoints", ()):
                    shutil.rmtree(self.path)
            else:
                shutil.rmtree(self.path)
        except OSError as error:
            raise InvalidInput(f"{error.filename}: cannot be removed: {error.strerror}") from None

    def _told_run(self) -> dict[str, object]:
        config = read_config(self.path)
        has_rows = (self.path / "rounds.csv").is_file()
        rows = read_rows(self.path) if has_rows else []
        last = rows[-1] if rows else None
        state = "finished" if is_finished(self.path) else "not finished"
        told: dict[str, object] = {
            "state": state,
            "what": f"{config.task} with {Contender.of(config).policy}",
            "rounds": f"{last.round if last else 0} of {config.rounds}",
        }
        if last is not None:
            told["metric"] = last.target.name
            told |= {"value": final_value(rows), "time_s": last.clock_s}
            told["energy_j"] = last.total_energy_j
        return told

    def _told_comparison(self) -> dict[str, object]:
        asked, _ = ComparisonFolder(self.path).asked()
        wanted = asked.runs()
        policies = dict.fromkeys(Contender.of(run).policy for run in wanted)
        seeds = f"{len(asked.seeds)} seed{'s' * (len(asked.seeds) > 1)}"
        finished = sum(is_finished(self.path / "runs" / run.run_name) for run in wanted)
        return {
            "state": "finished" if finished == len(wanted) else "not finished",
            "what": f"{asked.base.task}, {len(policies)} policies, {seeds}",
            "rounds": f"{finished} of {len(wanted)} runs",
        }


def stored_in(folder: Path) -> list[Stored]:
    """The runs and comparisons of a folder, in the order in which they began.

    Raises
    ------
    InvalidInput
        If there is no such folder, or it cannot be read.
    """
    try:
        return sorted(_entries(folder, folder), key=lambda one: (one.began_s, one.name))
    except OSError as error:
        raise InvalidInput(f"{folder}: not readable: {error.strerror}") from None


def _entries(folder: Path, below: Path) -> Iterator[Stored]:
    for path in sorted(below.iterdir()):
        name = str(path.relative_to(folder))
        if (path / "comparison.json").is_file():
            yield Stored(name, path, is_comparison=True)
        elif (path / "config.json").is_file():
            yield Stored(name, path, is_comparison=False)
        elif path.is_dir() and below == folder and not path.is_symlink():
            yield from _entries(folder, path)  # of a run whose name has a slash


def named_in(folder: Path, names: Iterable[str]) -> list[Stored]:
    """The runs and comparisons of a folder that are called so, each once.

    Raises
    ------
    UnknownName
        If there is none in the folder: what lies outside has no name here.
    """
    known = {one.name: one for one in stored_in(folder)}
    names = dict.fromkeys(name.rstrip("/") for name in names)
    for name in names:
        if name not in known:
            raise UnknownName("run", name, known, f" in {folder}")
    return [known[name] for name in names]


def comparable(chosen: Iterable[Stored]) -> list[FederationResult]:
    """The runs of what was chosen, which learn the same and are judged alike.

    Raises
    ------
    InvalidInput
        If they are not, or are too few.
    """
    results = [read_run(path) for one in chosen for path in one.runs]
    if len(results) < 2:
        raise InvalidInput(f"two runs or more are compared, got {len(results)}")
    for what in ("task", "metric"):
        found = {r.config.task if what == "task" else r.target.name: r.folder for r in results}
        if len(found) > 1:
            told = ", ".join(f"{folder} has {name}" for name, folder in found.items())
            raise InvalidInput(f"runs of one {what} are compared: {told}")
    return results


def config_differences(results: Sequence[FederationResult]) -> list[str]:
    """In what the configurations of runs differ from the first one's, a line for each run."""
    first, *others = results
    was = first.config.to_flower()
    return [
        f"{other.folder.name}, beside {first.folder.name}: {', '.join(changes)}"
        for other in others
        if (changes := changes_between(was, other.config.to_flower(), WHERE))
    ]


def frame_of(chosen: Iterable[Stored], what: str = "rounds") -> DataFrame:
    """The runs of what was chosen as one table of pandas, each row with whose it is.

    Parameters
    ----------
    chosen : iterable of Stored
    what : {"rounds", "reports"}
        A row for each round, or for each client's report in each round.
    """
    data_frame([])  # tells who has no pandas
    from pandas import concat

    tables = []
    for one in chosen:
        for path in one.runs:
            result = read_run(path)
            name = one.name if path == one.path else f"{one.name}/runs/{path.name}"
            contender = Contender.of(result.config)._asdict()
            told = {"run": name, "task": result.config.task, **contender}
            told["seed"] = result.config.seed
            table = result.to_pandas(what)
            for at, (key, value) in enumerate(told.items()):
                table.insert(at, key, value)
            tables.append(table)
    if not tables:
        raise InvalidInput("no run to export has finished")
    return concat(tables, ignore_index=True)
