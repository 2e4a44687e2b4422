"""One federated run over any Flower grid: the core of the ServerApp and of the simulation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from logging import WARNING
from pathlib import Path
from typing import Any, Protocol

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from torch import nn

from powerctl.errors import InvalidInput, PowerctlError
from powerctl.task.returned_metrics import target_of
from wattfed.client.tasks.federated import FederatedTask, federated
from wattfed.client.worker.mode_options import training_workload
from wattfed.client.worker.model_arrays import (
    array_record_of,
    load_arrays,
    load_file,
    parameter_names,
)
from wattfed.server import plan_check
from wattfed.server.history import FederationResult, RoundRow, last_metrics, summary
from wattfed.server.participants import Participants
from wattfed.server.results import ResultsFolder, placed
from wattfed.server.resuming import go_on, state_of_run
from wattfed.strategies.evaluation import BOTH, SERVER
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.catalogue import make_aggregation, make_policy
from wattfed.strategies.protocol import RUN, TASK, RoundAssignment, RoundReport
from wattfed.strategies.round.ledger import Ledger
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.state import State
from wattfed.strategies.target import Target, judged_by


class _TargetReached(Exception):
    """Ends Flower's loop of rounds, which has no other way out."""


class NoClients(PowerctlError):
    """Nobody answered, nobody took part in any round, or no update was of use."""


def check(config: RunConfig) -> None:
    """Raise at once for an unknown strategy, aggregation or task, or missing data or weights."""
    make_policy(config)
    make_aggregation(config)
    task = _task(config)
    if config.evaluate in (SERVER, BOTH) and not task.has_central_data:
        raise InvalidInput(
            f"evaluate is {config.evaluate}: {config.task} has no central_data(batch_size), which "
            "the server evaluates with"
        )
    if config.evaluation.on_server(task.has_central_data):
        task.central  # noqa: B018 - loads it, or raises for what is missing
    if config.start_from:
        _first_model(config)


AfterRound = Callable[[int, ArrayRecord], MetricRecord]


class Engine(Protocol):
    """Runs rounds: on Flower's grid, or on the virtual clock."""

    label_noise: str  # where that on its clients' labels is drawn from, for the summary

    def run(self, strategy: SelectingStrategy, arrays: ArrayRecord, after_round: AfterRound) -> Any:
        """All rounds that are not in the strategy's ledger yet; calls the last after each."""
        ...

    def participants(self, strategy: SelectingStrategy, offers: Offers) -> Participants:
        """Who the clients of some offers are, and why some of them cannot take part."""
        ...

    def state(self) -> State:
        """What it keeps between rounds."""
        ...

    def restore(self, state: State) -> None:
        """Take the state of another; raises `InvalidInput` if it is not of this run."""
        ...


class FlowerEngine:
    """Flower's own loop and messages; what clients keep, their nodes keep.

    Nodes are told the Flower run in which the federation began, by which agents keep accounts.

    Parameters
    ----------
    grid : Grid
        Of a SuperLink, or of the Simulation Runtime.
    config : RunConfig
        The run.
    """

    label_noise = "the operating system on nodes with a device or an agent, else the run's seed"

    def __init__(self, grid: Grid, config: RunConfig) -> None:
        self._grid = grid
        self._config = config
        self._run_id = str(grid.run.run_id)
        self._task_hash = _task(config).code_hash

    def run(self, strategy: SelectingStrategy, arrays: ArrayRecord, after_round: AfterRound) -> Any:
        """The rounds that are left, which Flower numbers from 1."""
        before = len(strategy.ledger.entries)

        def evaluate_fn(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            return after_round(before + server_round, arrays) if server_round else None

        return strategy.start(
            self._grid,
            arrays,
            num_rounds=self._config.rounds - before,
            timeout=self._config.timeout_s,
            train_config=ConfigRecord({RUN: self._run_id, TASK: self._task_hash}),
            evaluate_config=ConfigRecord({RUN: self._run_id, TASK: self._task_hash}),
            evaluate_fn=evaluate_fn,
        )

    def participants(self, strategy: SelectingStrategy, offers: Offers) -> Participants:
        """Clients are called by their nodes, and have said themselves why they decline."""
        nodes = strategy.node_of_client
        names = [f"node {nodes[client]}" for client in offers.client.tolist()]
        return Participants.of(offers, names, strategy.declined)

    def state(self) -> State:
        """The Flower run in which it began."""
        return {RUN: self._run_id}

    def restore(self, state: State) -> None:
        """Take over from another Flower run."""
        self._run_id = state[RUN]


def run_federation(
    grid: Grid,
    config: RunConfig,
    on_row: Callable[[RoundRow], None] | None = None,
    on_plan: Callable[[Participants], None] | None = None,
) -> FederationResult:
    """Train over the clients of a grid; evaluate, keep the books and save after each round.

    The run ends after its last round, or the first one that reaches its goal.

    Parameters
    ----------
    grid : Grid
        Flower's grid: of a SuperLink, or of the Simulation Runtime.
    config : RunConfig
        The run.
    on_row : callable, optional
        Called with the initial model's row and after each round; first with the last row there
        is, where a run goes on.
    on_plan : callable, optional
        Called once with the clients and what speaks against the plan, before its first round.

    Raises
    ------
    NoClients
        If too few nodes come within the time-out, no client took part in any round, or every update
        was refused.
    InvalidInput
        If the run is to go on from a checkpoint that is damaged, or of another configuration.
    UnknownName
        If the evaluation does not give the metric that the run is to be judged by.
    """
    check(config)
    _await_nodes(grid, config.min_nodes, config.timeout_s)
    return run_rounds(FlowerEngine(grid, config), config, on_row, on_plan)


def run_rounds(
    engine: Engine,
    config: RunConfig,
    on_row: Callable[[RoundRow], None] | None = None,
    on_plan: Callable[[Participants], None] | None = None,
) -> FederationResult:
    """What is the same on every engine, with a checked configuration; see `run_federation`."""
    torch.set_num_threads(1)  # as on the clients: the same seed gives the same numbers
    task = _task(config)
    config = placed(config)
    model = _first_model(config)
    arrays = array_record_of(model)
    folder = ResultsFolder(Path(config.out_dir) / config.run_name)
    evaluation = config.evaluation
    on_server = evaluation.on_server(task.has_central_data)
    strategy = SelectingStrategy(
        make_policy(config),
        make_aggregation(config, parameter_names(model)),
        per_round=config.per_round,
        round_policy=config.round_policy,
        evaluation=evaluation if evaluation.on_clients(task.has_central_data) else None,
        weight_cap=config.weight_cap,
        seed=config.seed,
        timeout_s=config.timeout_s,
        on_assigned=lambda *round_: begin_round(*round_),
    )
    rows: list[RoundRow] = []
    target: Target | None = None
    participants: Participants | None = None

    def begin_round(
        server_round: int, assignments: Sequence[RoundAssignment], offers: Offers
    ) -> None:
        nonlocal participants
        found, before = engine.participants(strategy, offers), participants
        if before is None:
            participants = replace(found, warnings=plan_check.warnings(config, found))
            if on_plan is not None:
                on_plan(participants)
        else:
            participants = before.followed_by(found)
        if participants != before:
            folder.write_participants(participants)
        folder.begin_round(server_round, assignments)

    def add(*new: RoundRow) -> RoundRow:
        """Add rounds; the first evaluation says what all of them are judged by."""
        nonlocal target
        rows.extend(new)
        if target is not None:
            rows[-1] = replace(rows[-1], target=target)
        elif metrics := last_metrics(rows):
            target = judged_by(config.goal, _declared(task, config, metrics), metrics)
            folder.judged_by(target)
            rows[:] = [replace(row, target=target) for row in rows]
        return rows[-1]

    def after_round(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        ledger = strategy.ledger
        load_arrays(model, arrays)
        metrics = task.evaluate(model) if on_server else {}
        mark = "clients' " if on_server else ""  # so that both have names of their own
        metrics |= {f"{mark}{name}": value for name, value in strategy.client_metrics.items()}
        entry = ledger.entries[-1] if server_round else None
        row = add(RoundRow(server_round, metrics, ledger.clock_s, ledger.energy_j, entry))
        folder.add_round(row, ledger.reports_of(server_round), ledger.refusals_of(server_round))
        if config.checkpoint_every and server_round % config.checkpoint_every == 0:
            folder.checkpoints.save(server_round, state_of_run(row, arrays, strategy, engine))
        show(row)
        return MetricRecord(metrics)

    def show(row: RoundRow) -> None:
        if on_row is not None:
            on_row(row)
        if config.goal is not None and row.reached(config.goal.levels):
            raise _TargetReached

    with folder.checkpoints, suppress(_TargetReached):
        begun = go_on(folder, config, strategy, engine) if config.resume else None
        if begun is None:
            reason = strategy.lacks_state
            if config.checkpoint_every and reason:
                log(WARNING, "this run can never be resumed: %s", reason)
            folder.begin(config)
            after_round(0, arrays)
        else:
            arrays, earlier = begun
            load_arrays(model, arrays)
            show(add(*earlier))
        engine.run(strategy, arrays, after_round)
    ledger = strategy.ledger
    told = summary(config, rows, ledger)
    if config.label_privacy:
        told["label_noise"] = engine.label_noise
    folder.finish(model.state_dict(), told)
    if not any(entry.reported for entry in ledger.entries):
        raise NoClients(
            f"no client took part in any round: {_reasons(ledger, participants or Participants())}"
        )
    if all(entry.reported == entry.rejected for entry in ledger.entries):
        reason = ledger.refusals[-1] if ledger.refusals else "see the log"
        raise NoClients(f"every update was refused, the model is as it began: {reason}")
    return FederationResult(config, tuple(rows), ledger, folder.path)


def _declared(task: FederatedTask, config: RunConfig, metrics: Mapping[str, float]) -> Target:
    """What the task says that it is judged by; where it does not, what is usual."""
    if config.goal is None:
        return Target(*target_of(task.task, metrics))
    return Target(*task.target) if task.target else Target()


def _task(config: RunConfig) -> FederatedTask:
    return federated(config, training_workload(config.workload).batch_size)


def _first_model(config: RunConfig) -> nn.Module:
    """The task's model with its random initialisation, or with the weights of a checkpoint."""
    model = _task(config).first_model()
    if config.start_from:
        load_file(model, Path(config.start_from))
    return model


def _await_nodes(grid: Grid, wanted: int, timeout_s: float) -> None:
    give_up = time.monotonic() + timeout_s
    while (present := len(list(grid.get_node_ids()))) < wanted:
        if time.monotonic() > give_up:
            raise NoClients(
                f"{present} of {wanted} nodes came within {timeout_s:g} s; start SuperNodes, or "
                "lower min-nodes"
            )
        time.sleep(0.2)


def _reasons(ledger: Ledger, participants: Participants) -> str:
    reports: list[RoundReport] = [report for _, report in ledger.reports]
    reasons = sorted(
        {*(report.decline for report in reports), *participants.unable.values()} - {""}
    )
    if failed := sum(entry.failed for entry in ledger.entries):
        reasons.append(f"{failed} trainings failed (see the log)")
    return "; ".join(reasons[:3]) or "nobody was selected"
