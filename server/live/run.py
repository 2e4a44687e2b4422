"""Follows a run in its results folder, which whoever writes it need not know of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from powerctl.errors import InvalidInput
from server.history import RoundRow, finite, summary
from server.live.accounts import ClientAccount, RoundWork
from server.live.following import FollowedFile
from server.recorded import is_finished, read_config, report_of, row_of
from strategies.ledger import Ledger
from strategies.run_config import RunConfig

MOST_CLIENTS = 1000  # in one record
_DEPTHS = ("*", "*/*", "*/*/*")  # RUN, RUN/against-OTHER, and COMPARISON/runs/RUN


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


class UnderWay(NamedTuple):
    """A round that goes on: who trains in it, by when, and since when (a Unix time)."""

    round: int
    clients: tuple[int, ...]
    deadline_s: float
    began_s: float


@dataclass(frozen=True)
class Snapshot:
    """A run as it was when it was looked at.

    Attributes
    ----------
    folder : Path
        Of its results.
    config : RunConfig
        The run.
    rows : tuple of RoundRow
        Its history, round 0 first; empty until the initial model has been evaluated.
    work : mapping of int to RoundWork
        Training as predicted and measured, by round.
    clients : tuple of ClientAccount
        All that were ever asked, by number.
    under_way : UnderWay or None
        The round after the last, if it has begun.
    is_finished : bool
        Whether all of it is there; else it goes on, or was killed.
    written_s : float
        When something was last written, as a Unix time.
    version : str
        The same only as long as nothing has changed.
    """

    folder: Path
    config: RunConfig
    rows: tuple[RoundRow, ...]
    work: Mapping[int, RoundWork]
    clients: tuple[ClientAccount, ...]
    under_way: UnderWay | None
    is_finished: bool
    written_s: float
    version: str

    @property
    def round(self) -> int:
        """Rounds that are over."""
        return self.rows[-1].round if self.rows else 0

    @property
    def ledger(self) -> Ledger:
        """The rounds' entries, without the reports."""
        return Ledger([row.entry for row in self.rows if row.entry is not None])

    @property
    def summary(self) -> dict[str, Any]:
        """As `server.history.summary` has it; empty before there is a row."""
        return summary(self.config, self.rows, self.ledger) if self.rows else {}

    @property
    def n_clients(self) -> int:
        """Clients that the run waited for, and at least all that were seen."""
        return max([self.config.min_nodes, *(a.client + 1 for a in self.clients[-1:])])

    def heard_last(self, n: int) -> list[ClientAccount]:
        """At most so many clients, those asked last; by number."""
        latest = sorted(self.clients, key=lambda account: -account.last_round)[:n]
        return sorted(latest, key=lambda account: account.client)

    def record(self) -> dict[str, Any]:
        """For JSON: at most `MOST_CLIENTS` clients, those heard of last."""
        rounds = [
            finite({**row.flat(), **_prefixed(self.work.get(row.round, RoundWork()))})
            for row in self.rows
        ]
        under_way = self.under_way._asdict() if self.under_way else {}
        return {
            "folder": str(self.folder),
            "finished": self.is_finished,
            "written_unix_s": self.written_s,
            "round": self.round,
            "rounds_wanted": self.config.rounds,
            "under_way": finite(under_way),
            "config": self.config.to_flower(),
            "summary": finite(self.summary),
            "rounds": rounds,
            "clients_seen": len(self.clients),
            "clients": [account.record() for account in self.heard_last(MOST_CLIENTS)],
        }


def _under_way(path: Path, server_round: int) -> UnderWay | None:
    """The round of a file ``round.json``, if it is the one wanted."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        deadline_s = math.inf if values["deadline_s"] is None else float(values["deadline_s"])
        clients = tuple(map(int, values["clients"]))
        found = UnderWay(values["round"], clients, deadline_s, float(values["began_unix_s"]))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(f"{path}: damaged: {error}") from None
    return found if found.round == server_round else None


def _prefixed(work: RoundWork) -> dict[str, float]:
    return {f"training_{key}": value for key, value in vars(work).items()}


class LiveRun:
    """Looks at a run again and again, and reads only what is new in it.

    Parameters
    ----------
    path : Path
        The run's folder; or one above it, then each look is at the run there that began last.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
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
        except OSError as error:
            raise InvalidInput(f"{error.filename}: not readable: {error.strerror}") from None

    def _look(self) -> Snapshot:
        folder = run_in(self._path)
        if folder != self._folder:
            self._begin(folder)
        finished = is_finished(folder)  # before the rest, so that nothing can be missing
        config = read_config(folder)
        while (reports := self._reports.new_lines()) is None or (
            lines := self._rounds.new_lines()
        ) is None:
            self._begin(folder)
        self._enter_reports(reports)
        self._enter_rounds(lines)
        began_s = (folder / "config.json").stat().st_mtime
        under_way = _under_way(folder / "round.json", len(self._rows))
        names = ("rounds.csv", "reports.jsonl", "summary.json")
        times_s = [(folder / name).stat().st_mtime for name in names if (folder / name).exists()]
        written_s = max(began_s, *times_s, under_way.began_s if under_way else 0.0)
        read = f"{self._rounds.read_lines} {self._reports.read_lines} {bool(under_way)}"
        return Snapshot(
            folder=folder,
            config=config,
            rows=tuple(self._rows),
            work=self._work,
            clients=tuple(self._accounts[client] for client in sorted(self._accounts)),
            under_way=None if finished else under_way,
            is_finished=finished,
            written_s=written_s,
            version=f"{folder} {began_s} {read} {finished}",
        )

    def _begin(self, folder: Path) -> None:
        """Forget what was read."""
        self._folder = folder
        self._rounds = FollowedFile(folder / "rounds.csv")
        self._reports = FollowedFile(folder / "reports.jsonl")
        self._head = ""
        self._rows: list[RoundRow] = []
        self._work: dict[int, RoundWork] = {}
        self._accounts: dict[int, ClientAccount] = {}

    def _enter_rounds(self, lines: list[str]) -> None:
        first = self._rounds.read_lines - len(lines) + 1
        for number, line in enumerate(lines, start=first):
            if number == 1:
                self._head = line
                continue
            row = row_of(f"{self._rounds.path}, line {number}", self._head, line)
            self._rows.append(row)
            for client in row.entry.clients if row.entry else ():
                account = self._account(client)
                account.asked += 1
                account.last_round = max(account.last_round, row.round)

    def _enter_reports(self, lines: list[str]) -> None:
        first = self._reports.read_lines - len(lines) + 1
        for number, line in enumerate(lines, start=first):
            server_round, report = report_of(f"{self._reports.path}, line {number}", line)
            self._account(report.client).enter(server_round, report)
            if report.minibatches:
                self._work.setdefault(server_round, RoundWork()).enter(report)

    def _account(self, client: int) -> ClientAccount:
        return self._accounts.setdefault(client, ClientAccount(client))
