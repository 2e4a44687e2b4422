"""Follows a run in its results folder, which whoever writes it need not know of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from powerctl.errors import InvalidInput
from powerctl.fields import build, checked
from powerctl.reading import NoFile, open_regular, read_json
from wattfed.server.live.snapshot import ClientAccount, RoundWork, Snapshot, UnderWay
from wattfed.server.run.history import RoundRow
from wattfed.server.run.participants import Participants
from wattfed.server.run.results import (
    is_finished,
    read_config,
    read_target,
    refusal_of,
    report_of,
    row_of,
)
from wattfed.strategies.round.ledger import RefusedReply
from wattfed.strategies.target import Target

_DEPTHS = ("*", "*/*", "*/*/*")  # RUN, RUN/against-OTHER, and COMPARISON/runs/RUN
Lines = list[tuple[int, str]]
"""Lines of a file with their numbers, from 1 on."""


class FollowedFile:
    """The lines of a text file, as they are appended.

    A last line without its end is left for later: whoever writes it has not finished, or was
    killed. Where the line read last is no longer in its place, the file is another one, or was cut
    (a run began anew in the folder, or goes on from an earlier round), and is to be read again.

    Parameters
    ----------
    path : Path
        May appear later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_lines = 0
        self._last = b""
        self._last_at = 0

    def new_lines(self) -> Lines | None:
        """The lines since the last call; None if the file is to be read again, from its start.

        Raises
        ------
        InvalidInput
            If it cannot be read.
        """
        try:
            with open_regular(self.path) as file:
                file.seek(self._last_at)
                content = file.readall()
        except NoFile:
            content = b""
        if not content.startswith(self._last):
            return None
        *lines, _unfinished = content[len(self._last) :].split(b"\n")
        for line in lines:
            self._last_at += len(self._last)
            self._last = line + b"\n"
        first = self.read_lines + 1
        self.read_lines += len(lines)
        texts = (line.decode(errors="replace").removeprefix("\ufeff") for line in lines)
        return list(enumerate(texts, start=first))


def run_in(path: Path) -> Path:
    """The folder of a run: the one given, or the one in it that began last.

    Raises
    ------
    InvalidInput
        If there is none.
    """
    if (path / "config.json").is_file():
        return path
    configs = [
        rounds.with_name("config.json")
        for depth in _DEPTHS
        for rounds in path.glob(f"{depth}/rounds.csv")
    ]
    begun = [(config.stat().st_mtime_ns, config) for config in configs if config.is_file()]
    if not begun:
        raise InvalidInput(
            f"{path}: no run here, nor in its folders; give the out-dir of a run, or RUN in it"
        )
    return max(begun)[1].parent


class LiveRun:
    """Looks at a run again and again, and reads only what is new in it.

    Parameters
    ----------
    path : Path
        The run's folder; or one above it, then each look is at the run there that began last.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._target = Target()
        self._begin(path)

    def look(self) -> Snapshot:
        """The run as it is now; what a writer has not finished is left out.

        Raises
        ------
        InvalidInput
            If there is no run, or a file of it is damaged.
        """
        try:
            return self._look()
        except InvalidInput:
            self._begin(self._folder)  # part of what was read may not have been entered
            raise
        except OSError as error:
            raise InvalidInput(f"{error.filename}: not readable: {error.strerror}") from None

    def _look(self) -> Snapshot:
        folder = run_in(self._path)
        if folder != self._folder:
            self._begin(folder)
        finished = is_finished(folder)  # before the rest, so that nothing can be missing
        config, target, participants = (
            read_config(folder),
            read_target(folder),
            Participants.of_run(folder),
        )
        if target != self._target:  # told by a first evaluation, or another since the run goes on
            self._begin(folder)
            self._target = target
        while (
            (reports := self._reports.new_lines()) is None
            or (refusals := self._refusals_file.new_lines()) is None
            or (lines := self._rounds.new_lines()) is None
        ):
            self._begin(folder)
        self._enter_reports(reports)
        for n, line in refusals:
            self._refusals.append(refusal_of(f"{self._refusals_file.path}, line {n}", line))
        self._enter_rounds(lines)
        began_s = (folder / "config.json").stat().st_mtime
        under_way = _under_way(folder / "round.json", len(self._rows))
        names = ("rounds.csv", "reports.jsonl", "summary.json")
        times_s = [(folder / name).stat().st_mtime for name in names if (folder / name).exists()]
        written_s = max(began_s, *times_s, under_way.began_s if under_way else 0.0)
        files = (self._rounds, self._reports, self._refusals_file)
        read = f"{' '.join(str(f.read_lines) for f in files)} {bool(under_way)}"
        accounts = {
            client: replace(
                self._accounts.get(client, ClientAccount(client)),
                name=participants.name_of(client),
                unable=participants.unable.get(client, ""),
            )
            for client in self._accounts.keys() | participants.unable.keys()
        }
        return Snapshot(
            folder=folder,
            config=config,
            rows=tuple(self._rows),
            work=self._work,
            refusals=tuple(self._refusals),
            clients=tuple(accounts[client] for client in sorted(accounts)),
            participants=participants,
            under_way=None if finished else under_way,
            is_finished=finished,
            written_s=written_s,
            version=f"{folder} {began_s} {read} {finished} {target.direction} {target.name}",
        )

    def _begin(self, folder: Path) -> None:
        """Begin to follow a folder; what was read before is forgotten."""
        self._folder = folder
        self._rounds = FollowedFile(folder / "rounds.csv")
        self._reports = FollowedFile(folder / "reports.jsonl")
        self._refusals_file = FollowedFile(folder / "refusals.jsonl")
        self._refusals: list[RefusedReply] = []
        self._head = ""
        self._rows: list[RoundRow] = []
        self._work: dict[int, RoundWork] = {}
        self._accounts: dict[int, ClientAccount] = {}

    def _enter_rounds(self, lines: Lines) -> None:
        for number, line in lines:
            if number == 1:
                self._head = line
                continue
            row = row_of(f"{self._rounds.path}, line {number}", self._head, line, self._target)
            self._rows.append(row)
            for client in row.entry.clients if row.entry else ():
                account = self._account(client)
                account.asked += 1
                account.last_round = max(account.last_round, row.round)

    def _enter_reports(self, lines: Lines) -> None:
        for number, line in lines:
            server_round, report = report_of(f"{self._reports.path}, line {number}", line)
            self._account(report.client).enter(server_round, report)
            if report.minibatches:
                self._work.setdefault(server_round, RoundWork()).enter(report)

    def _account(self, client: int) -> ClientAccount:
        return self._accounts.setdefault(client, ClientAccount(client))


def _under_way(path: Path, server_round: int) -> UnderWay | None:
    """The round of a file ``round.json``, if it is the one wanted."""
    where = f"{path}: damaged"
    try:
        values = checked(where, read_json(path), Mapping[str, Any])
    except NoFile:
        return None
    deadline_s = values.get("deadline_s")
    told = {"deadline_s": math.inf if deadline_s is None else deadline_s}
    if "began_unix_s" in values:
        told["began_s"] = values["began_unix_s"]
    found = build(UnderWay, {**values, **told}, where, ignored=("began_unix_s",))
    return found if found.round == server_round else None
