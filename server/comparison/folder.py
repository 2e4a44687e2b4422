"""A comparison's folder: what was asked, and one folder for each run as it finishes."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from powerctl.durable import replace_file
from powerctl.errors import InvalidInput
from powerctl.fields import checked
from powerctl.reading import NoFile, misread, read_json
from wattfed.server.comparison.grid import REPLACED, Comparison
from wattfed.server.run.history import FederationResult
from wattfed.server.run.results import is_finished, read_run
from wattfed.strategies.code_version import code_hash
from wattfed.strategies.run_config import RunConfig, changes_between

T = TypeVar("T")


class ComparisonFolder:
    """A folder of ``comparison.json`` and ``runs/NAME``, each a run's results.

    A run is finished once its summary is there, which is written last: so a comparison that was
    killed, at whatever moment, goes on with the runs that are not. Policies, power policies,
    numbers of clients and seeds may be added to a folder; what its runs have in common may not
    change.

    Parameters
    ----------
    path : Path
        Made when a comparison begins.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "comparison.json"

    @contextmanager
    def begun(self, comparison: Comparison, n_clients: int) -> Iterator[Comparison]:
        """Hold the folder for a comparison; yields it together with what earlier ones asked.

        Raises
        ------
        InvalidInput
            If the folder cannot be written, is held by another process, or holds the runs of
            another configuration or of other code.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"cannot write results to {self.path}: {error.strerror}") from None
        with self.held():
            whole = self._joined(comparison) if self.file.exists() else comparison
            self._write(whole, n_clients)
            yield whole

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out of the folder; raises `InvalidInput` where one is in it."""
        try:
            folder = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise InvalidInput(f"cannot write results to {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise InvalidInput(
                f"{self.path}: another process runs this comparison; wait for it, or give another "
                "folder"
            ) from None
        finally:
            os.close(folder)

    def placed(self, config: RunConfig) -> RunConfig:
        """A run's configuration, with its results in this folder, which keeps whole runs."""
        return replace(config, out_dir=str(self.path / "runs"), checkpoint_every=0)

    def finished(self, config: RunConfig) -> bool:
        """Whether a run of the comparison is whole."""
        return is_finished(self.path / "runs" / config.run_name)

    def asked(self) -> tuple[Comparison, int]:
        """What was asked: the comparison, and the clients of its fleet."""
        record = self._read()
        with misread(f"{self.file}: damaged"):
            return Comparison.from_record(record["asked"]), int(record["clients"])

    def results(self, comparison: Comparison) -> Iterator[FederationResult]:
        """The finished runs of a comparison, one after the other."""
        for config in comparison.runs():
            folder = self.path / "runs" / config.run_name
            if is_finished(folder):
                yield read_run(folder)

    def _joined(self, new: Comparison) -> Comparison:
        """What was asked before, with what is new."""
        old, _ = self.asked()
        self._check_code()
        was, now = _settings(old), _settings(new)
        if changes := changes_between(was, now):
            raise InvalidInput(
                f"{self.path} holds another comparison: {', '.join(changes)}; give another folder"
            )
        return replace(
            new,
            strategies=_union(old.strategies, new.strategies),
            powers=_union(old.powers, new.powers),
            per_round=_union(old.per_round, new.per_round),
            seeds=_union(old.seeds, new.seeds),
        )

    def _check_code(self) -> None:
        if (code := self._read().get("code")) != code_hash():
            raise InvalidInput(
                f"{self.path} was begun by other code ({code}, this is {code_hash()}): its runs "
                "and new ones do not compare; give another folder"
            )

    def _read(self) -> dict[str, Any]:
        try:
            content = read_json(self.file)
        except NoFile:
            raise InvalidInput(
                f"{self.path}: no comparison here, it has no comparison.json; begin one with: "
                f"wattfed compare --out {self.path}"
            ) from None
        return dict(checked(f"{self.file}: not readable: it", content, Mapping[str, Any]))

    def _write(self, comparison: Comparison, n_clients: int) -> None:
        content = {
            "code": code_hash(),
            "clients": n_clients,
            "asked": comparison.record(),
        }
        replace_file(self.file, (json.dumps(content, indent=2) + "\n").encode())


def _union(old: tuple[T, ...], new: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*old, *new)))


def _settings(comparison: Comparison) -> dict[str, Any]:
    """What all runs of a folder have in common; neither workers nor a tracker change any of it."""
    base = comparison.base.to_flower()
    base = {k: v for k, v in base.items() if k not in (*REPLACED, "workers", "log")}
    return {**base, "targets": comparison.targets, "all-rounds": comparison.all_rounds}
