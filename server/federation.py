"""One federated run over any Flower grid: the core of the ServerApp and of the simulation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid

from client.tasks.evaluation import evaluate
from client.tasks.task import load_task
from powerctl.errors import PowerctlError
from powerctl.rounds import RoundReport
from server.history import RoundRow, best_accuracy
from server.results import ResultsFolder
from strategies.catalogue import make_aggregation, make_policy
from strategies.ledger import Ledger
from strategies.run_config import RunConfig
from strategies.selecting import SelectingStrategy


class _TargetReached(Exception):
    """Ends Flower's loop of rounds, which has no other way out."""


class NoClients(PowerctlError):
    """Nobody answered, or nobody took part in any round."""


@dataclass(frozen=True)
class FederationResult:
    """A finished run: its history, its ledger with all reports, and where the files are."""

    config: RunConfig
    rows: tuple[RoundRow, ...]
    ledger: Ledger
    folder: Path

    @property
    def minibatches(self) -> list[int]:
        """Minibatches trained in each round."""
        return [
            sum(report.minibatches for report in self.ledger.reports_of(entry.round))
            for entry in self.ledger.entries
        ]


def check(config: RunConfig) -> None:
    """Raise at once for an unknown strategy, aggregation or task, or missing data."""
    make_policy(config)
    make_aggregation(config)
    load_task(config.task, config.data_dir).test_samples()


Rounds = Callable[[SelectingStrategy, ArrayRecord, Callable[[int, ArrayRecord], MetricRecord]], Any]
"""Runs all rounds from the initial arrays; calls the last argument with 0 and each round's."""


def run_federation(
    grid: Grid, config: RunConfig, on_row: Callable[[RoundRow], None] | None = None
) -> FederationResult:
    """Train over the clients of a grid; evaluate, keep the books and save after each round.

    The run ends after its last round, or the first one that reaches the target accuracy.

    Parameters
    ----------
    grid : Grid
        Flower's grid: of a SuperLink, or of the Simulation Runtime.
    config : RunConfig
        The run.
    on_row : callable, optional
        Called with the initial model's row and after each round.

    Raises
    ------
    NoClients
        If too few nodes come within the time-out, or no client took part in any round.
    """

    def rounds(
        strategy: SelectingStrategy,
        arrays: ArrayRecord,
        after_round: Callable[[int, ArrayRecord], MetricRecord],
    ) -> None:
        strategy.start(
            grid,
            arrays,
            num_rounds=config.rounds,
            timeout=config.timeout_s,
            evaluate_fn=after_round,
        )

    check(config)
    _await_nodes(grid, config.min_nodes, config.timeout_s)
    return run_rounds(rounds, config, on_row)


def run_rounds(
    rounds: Rounds, config: RunConfig, on_row: Callable[[RoundRow], None] | None = None
) -> FederationResult:
    """What is the same on every engine: see `run_federation`."""
    check(config)
    torch.set_num_threads(1)  # as on the clients: the same seed gives the same numbers
    task = load_task(config.task, config.data_dir)
    torch.manual_seed(config.seed)
    model = task.model()
    folder = ResultsFolder(Path(config.out_dir) / config.run_name)
    folder.write_config(config)
    strategy = SelectingStrategy(
        make_policy(config),
        make_aggregation(config),
        per_round=config.per_round,
        closing=config.closing,
        seed=config.seed,
        timeout_s=config.timeout_s,
    )
    ledger = strategy.ledger
    rows: list[RoundRow] = []

    def after_round(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        loss, accuracy = evaluate(model, task.test_samples())
        entry = ledger.entries[-1] if server_round else None
        row = RoundRow(server_round, accuracy, loss, ledger.clock_s, ledger.energy_j, entry)
        rows.append(row)
        folder.add_round(row)
        folder.add_reports(server_round, ledger.reports_of(server_round))
        folder.save_checkpoint(server_round, model.state_dict())
        if on_row is not None:
            on_row(row)
        if 0 < config.target_accuracy <= accuracy:
            raise _TargetReached
        return MetricRecord({"accuracy": accuracy, "loss": loss})

    with suppress(_TargetReached):
        rounds(strategy, ArrayRecord(model.state_dict()), after_round)
    folder.finish(model.state_dict(), summary(config, rows, ledger))
    if not any(entry.reported for entry in ledger.entries):
        raise NoClients(f"no client took part in any round: {_reasons(ledger)}")
    return FederationResult(config, tuple(rows), ledger, folder.path)


def summary(config: RunConfig, rows: Sequence[RoundRow], ledger: Ledger) -> dict[str, object]:
    """A run in a few numbers; times and energies are the fleet's own."""
    entries = ledger.entries
    return {
        "task": config.task,
        "charged_workload": config.workload,
        "strategy": config.strategy,
        "power": config.power,
        "rounds": len(entries),
        "final_accuracy": rows[-1].accuracy,
        "best_accuracy": best_accuracy(rows),
        "virtual_time_s": ledger.clock_s,
        "energy_j": ledger.energy_j,
        "train_energy_j": sum(entry.train_energy_j for entry in entries),
        "transfer_energy_j": sum(entry.transfer_energy_j for entry in entries),
        "wait_energy_j": sum(entry.wait_energy_j for entry in entries),
        "wasted_energy_j": sum(entry.wasted_energy_j for entry in entries),
        "power_violations": sum(entry.power_violations for entry in entries),
        "budget_violations": sum(entry.budget_violations for entry in entries),
        "latency_violations": sum(entry.latency_violations for entry in entries),
        "inference_energy_j": sum(entry.inference_energy_j for entry in entries),
        "guarded": sum(entry.guarded for entry in entries),
        "late": sum(entry.late for entry in entries),
        "declined": sum(entry.declined for entry in entries),
        "failed": sum(entry.failed for entry in entries),
        "rejected": sum(entry.rejected for entry in entries),
        "stale": sum(entry.stale for entry in entries),
        "dropped": sum(entry.dropped for entry in entries),
    }


def _await_nodes(grid: Grid, wanted: int, timeout_s: float) -> None:
    give_up = time.monotonic() + timeout_s
    while (present := len(list(grid.get_node_ids()))) < wanted:
        if time.monotonic() > give_up:
            raise NoClients(
                f"{present} of {wanted} nodes came within {timeout_s:g} s; start SuperNodes, or "
                "lower min-nodes"
            )
        time.sleep(0.2)


def _reasons(ledger: Ledger) -> str:
    reports: list[RoundReport] = [report for _, report in ledger.reports]
    reasons = sorted({report.decline for report in reports if report.decline})
    return "; ".join(reasons[:3]) or "none made a valid offer (see the log)"
