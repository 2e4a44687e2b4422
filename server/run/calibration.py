"""How far a fleet file is off what a run has really taken, and the file with that corrected."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from powerctl.power_log import PowerLog
from powerctl.statistics import Estimate, estimate
from powerctl.thermal_fit import fit_thermal, idle_power
from powerctl.toml_writing import toml_text
from wattfed.client.fleet.fleet import Fleet
from wattfed.client.fleet.fleet_file import fleet_groups, load_fleet
from wattfed.client.fleet.round_costs import real_rounds
from wattfed.server.run.history import FederationResult
from wattfed.strategies.protocol import RoundReport

UNSEEN = ("send_w", "receive_w", "tail_j", "carrier_w", "supply_efficiency")
"""What neither reports nor the module's own sensors tell: a meter at the socket would."""
_PLANNED = ("minibatch time", "minibatch energy")


@dataclass(frozen=True)
class Correction:
    """One parameter of a group of a fleet file, beside what was measured of it.

    Attributes
    ----------
    group : int
        Number of the group, from 1.
    board : str
    key : str
        The parameter in the group's table `round`; what of a minibatch was planned is a ratio, and
        in no file.
    was : float
        In the file, or by default: the mean of the group.
    found : Estimate
        What was measured, with its 95 % interval.
    source : str
        Where the file's value is from.
    """

    group: int
    board: str
    key: str
    was: float
    found: Estimate
    source: str

    @property
    def is_written(self) -> bool:
        """Whether it is a parameter of the file, and known well enough to correct it."""
        return self.key not in _PLANNED and not math.isnan(self.found.half_width)


@dataclass(frozen=True)
class _Group:
    """A group of a fleet, with the reports of its clients in all runs, by client."""

    number: int
    board: str
    first: int
    last: int
    reports: Mapping[int, Sequence[RoundReport]]


def corrections_of(
    fleet_name: str, runs: Sequence[FederationResult], logs: Mapping[str, PowerLog]
) -> list[Correction]:
    """What runs, and logs of some boards, tell of the parameters of a fleet file.

    Parameters
    ----------
    fleet_name : str
        A file, or a fleet of the catalogue; clients are those of its groups by their numbers.
    runs : sequence of FederationResult
        With the clients' reports.
    logs : mapping of str to PowerLog
        By the board that was logged.

    Raises
    ------
    InvalidInput
        If a client is none of the fleet, or a log is of a board that is not in it.
    """
    fleet = load_fleet(fleet_name)
    groups = list(_groups(fleet_name, len(fleet), runs))
    if strange := set(logs) - {group.board for group in groups}:
        raise InvalidInput(f"no board {min(strange)} in {fleet_name}, of which there is a log")
    found = []
    for group in groups:
        measured = [*_from_reports(group), *_from_log(logs.get(group.board))]
        found += [_correction(fleet, group, key, value) for key, value in measured]
    return found


def corrected(fleet_name: str, corrections: Iterable[Correction], runs: Sequence[str]) -> str:
    """The fleet file with what was measured in its place, as TOML."""
    path, content = fleet_groups(fleet_name)
    groups = [dict(group) for group in content["group"]]
    for one in corrections:
        if one.is_written:
            group = groups[one.group - 1]
            value = one.found.mean >= 0.5 if one.key == "agent" else float(f"{one.found.mean:.4g}")
            group["round"] = {**group.get("round", {}), one.key: value}
    folder = Path(str(path)).parent
    whole = [_with_whole_paths(group, folder) for group in groups]
    head = f"# {path}, corrected by wattfed calibrate from {', '.join(runs)}.\n"
    return head + toml_text({**content, "group": whole})


def _groups(fleet_name: str, n_clients: int, runs: Sequence[FederationResult]) -> Iterator[_Group]:
    reports: dict[int, list[RoundReport]] = {}
    for run in runs:
        for _, report in run.ledger.reports:
            if report.client >= n_clients:
                raise InvalidInput(
                    f"{run.folder}: client {report.client} is none of the {n_clients} of "
                    f"{fleet_name}; name the run's own fleet by --fleet"
                )
            if report.minibatches and not report.lost:
                reports.setdefault(report.client, []).append(report)
    first = 0
    for number, group in enumerate(fleet_groups(fleet_name)[1]["group"], start=1):
        last = first + group.get("count", 1) - 1
        own = {client: told for client, told in reports.items() if first <= client <= last}
        yield _Group(number, str(group["board"]), first, last, own)
        first = last + 1


def _from_reports(group: _Group) -> Iterator[tuple[str, Estimate]]:
    everyone = [report for told in group.reports.values() for report in told]
    if not everyone:
        return
    answered = [report for report in everyone if report.answered_s]
    if answered:
        beside_s = [r.answered_s - r.time_s - r.transfer_s for r in answered]
        yield "fixed_s", estimate(np.maximum(beside_s, 0.0).tolist())
    cold = [report.warm_up_s for report in everyone if report.warm_up_s]
    if cold:
        yield "cold_s", estimate(cold)
    later = [bool(r.warm_up_s) for told in group.reports.values() for r in told[1:]]
    if later:
        share = 1 - float(np.mean(later))
        yield "agent", Estimate(share, share, share, len(later))
    warm = [report for report in everyone if not report.warm_up_s]
    if warm:
        yield _PLANNED[0], estimate([r.time_s / r.expected_time_s for r in warm])
        yield _PLANNED[1], estimate([r.energy_j / r.expected_energy_j for r in warm])


def _from_log(log: PowerLog | None) -> Iterator[tuple[str, Estimate]]:
    if log is None:
        return
    if resting := idle_power(log):
        yield "idle_w", resting
    fit = fit_thermal(log)
    if fit.is_sure:
        yield from (("k_per_w", fit.k_per_w), ("tau_s", fit.tau_s), ("ambient_c", fit.ambient_c))


def _correction(fleet: Fleet, group: _Group, key: str, found: Estimate) -> Correction:
    if key in _PLANNED:
        return Correction(group.number, group.board, key, 1.0, found, "what the client planned")
    column = "stays_warm" if key == "agent" else key
    values = getattr(fleet.round_costs, column)[group.first : group.last + 1]
    return Correction(
        group.number, group.board, key, float(values.mean()), found, _source(fleet, key)
    )


def _source(fleet: Fleet, key: str) -> str:
    if fleet.is_ideal:
        return "ideal rounds"
    name = {"idle_w": "floating_share", "agent": "fixed_s"}.get(key, key)
    return str(real_rounds()[name]["source"])


def _with_whole_paths(group: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A group whose files are named wholly, as the corrected one may lie elsewhere."""
    whole = dict(group)
    if str(whole["board"]).endswith(".toml"):
        whole["board"] = str((folder / whole["board"]).resolve())
    around = whole.get("availability", {})
    if "trace" in around:
        whole["availability"] = {**around, "trace": str((folder / around["trace"]).resolve())}
    return whole


def read_logs(texts: Sequence[str], interval_s: float) -> dict[str, PowerLog]:
    """Logs by their boards, from ``BOARD=FILE`` each."""
    logs = {}
    for text in texts:
        board, equals, path = text.partition("=")
        if not equals:
            raise InvalidInput(f"--log {text}: write BOARD=FILE, such as orin-nano=tegrastats.log")
        logs[board] = PowerLog.read(Path(path), load_board(board), interval_s)
    return logs
