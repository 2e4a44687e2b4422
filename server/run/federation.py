"""One federated run, on any engine: rounds, evaluation, books, results, and where it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from logging import WARNING
from pathlib import Path

import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.common.logger import log
from torch import nn

from powerctl.errors import InvalidInput, PowerctlError
from powerctl.task.returned_metrics import target_of
from wattfed.client.tasks.federated import FederatedTask, federated
from wattfed.client.worker.charging import usual_batch_size
from wattfed.client.worker.model_arrays import (
    array_record_of,
    load_arrays,
    load_file,
    parameter_names,
)
from wattfed.server.run.engine import RoundEngine
from wattfed.server.run.history import (
    FederationResult,
    RoundRow,
    holds,
    last_metrics,
    spent_budgets,
    summary,
)
from wattfed.server.run.participants import Participants
from wattfed.server.run.results import ResultsFolder, placed
from wattfed.server.run.resuming import go_on, state_of_run
from wattfed.server.run.supervisor import Supervisor
from wattfed.server.run.tracking import tracker_of
from wattfed.strategies.evaluation import BOTH, SERVER
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.catalogue import make_policy
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.round.aggregation import make_aggregation
from wattfed.strategies.round.ledger import Ledger
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import Target, judged_by


class _Ended(Exception):
    """Ends Flower's loop of rounds, which has no other way out: at the target, or a budget."""


class NoClients(PowerctlError):
    """Nobody answered, nobody took part in any round, or no update was of use."""


def check(config: RunConfig) -> None:
    """Raise at once for an unknown strategy, aggregation or task, or missing data or weights."""
    make_policy(config)
    make_aggregation(config)
    task = task_of(config)
    if config.evaluate in (SERVER, BOTH) and not task.has_central_data:
        raise InvalidInput(
            f"evaluate is {config.evaluate}: {config.task} has no central_data(batch_size), which "
            "the server evaluates with"
        )
    if config.evaluation.on_server(task.has_central_data):
        task.central  # noqa: B018 - loads it, or raises for what is missing
    if config.start_from:
        _first_model(config)
    tracker_of(config, Path(config.out_dir, config.run_name))


def run_rounds(
    engine: RoundEngine,
    config: RunConfig,
    on_row: Callable[[RoundRow], None] | None = None,
    on_plan: Callable[[Participants], None] | None = None,
) -> FederationResult:
    """What is the same on every engine, with a checked configuration; see `run_federation`."""
    torch.set_num_threads(1)  # as on the clients: the same seed gives the same numbers
    return _Federation(engine, placed(config), on_row, on_plan).run()


class _Federation:
    """A run as it goes on: its model, its strategy, its rounds so far and its folder."""

    def __init__(
        self,
        engine: RoundEngine,
        config: RunConfig,
        on_row: Callable[[RoundRow], None] | None,
        on_plan: Callable[[Participants], None] | None,
    ) -> None:
        self._engine, self._config = engine, config
        self._on_row, self._on_plan = on_row, on_plan
        self._task = task_of(config)
        self._model = _first_model(config)
        self._folder = ResultsFolder(Path(config.out_dir) / config.run_name)
        self._tracker = tracker_of(config, self._folder.path)
        has_data = self._task.has_central_data
        self._on_server = config.evaluation.on_server(has_data)
        self._strategy = SelectingStrategy(
            make_policy(config),
            make_aggregation(config, parameter_names(self._model)),
            per_round=config.per_round,
            round_policy=config.round_policy,
            evaluation=config.evaluation if config.evaluation.on_clients(has_data) else None,
            weight_cap=config.weight_cap,
            seed=config.seed,
            timeout_s=config.timeout_s,
            on_assigned=self._begin_round,
        )
        self._rows: list[RoundRow] = []
        self._target: Target | None = None  # until the first evaluation
        self._participants: Participants | None = None  # until the first round
        self._supervisor = Supervisor()
        self._ended = ""  # why the supervisor ends it

    def run(self) -> FederationResult:
        """All rounds, and the model and the summary in the end."""
        is_finished = False
        try:
            with self._folder.checkpoints, suppress(_Ended):
                arrays = self._begin()
                self._engine.run(self._strategy, arrays, self._after_round)
            is_finished = True
        finally:
            self._tracker.close(is_finished)
        ledger = self._strategy.ledger
        participants = self._participants or Participants.of_run(self._folder.path)
        told = summary(self._config, self._rows, ledger, participants.charged)
        if self._config.label_privacy:
            told["label_noise"] = self._engine.label_noise
        if self._ended:
            told["ended"] = self._ended
            assert self._supervisor.best is not None
            load_arrays(self._model, self._supervisor.best)
        self._folder.finish(self._model.state_dict(), told)
        self._check_use(ledger)
        return FederationResult(self._config, tuple(self._rows), ledger, self._folder.path)

    def _begin(self) -> ArrayRecord:
        """The model to go on with: the initial one, or that of the last checkpoint."""
        config, folder, strategy = self._config, self._folder, self._strategy
        kept = self._supervisor
        begun = go_on(folder, config, strategy, self._engine, kept) if config.resume else None
        if begun is not None:
            arrays, earlier = begun
            load_arrays(self._model, arrays)
            self._show(self._add(*earlier))
            return arrays
        if config.checkpoint_every and strategy.lacks_state:
            log(WARNING, "this run can never be resumed: %s", strategy.lacks_state)
        folder.begin(config)
        arrays = array_record_of(self._model)
        self._after_round(0, arrays)
        return arrays

    def _begin_round(
        self, server_round: int, assignments: Sequence[RoundAssignment], offers: Offers
    ) -> None:
        found, before = self._engine.participants(self._strategy, offers), self._participants
        now = found.warned(self._config) if before is None else before.followed_by(found)
        if before is None and self._on_plan is not None:
            self._on_plan(now)
        if now != before:
            self._folder.write_participants(now)
        self._participants = now
        self._folder.begin_round(server_round, assignments)

    def _after_round(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        config, folder, ledger = self._config, self._folder, self._strategy.ledger
        load_arrays(self._model, arrays)
        metrics = self._task.evaluate(self._model) if self._on_server else {}
        mark = "clients' " if self._on_server else ""  # so that both have names of their own
        found = self._strategy.client_metrics
        metrics |= {f"{mark}{name}": value for name, value in found.items()}
        entry = ledger.entries[-1] if server_round else None
        row = self._add(RoundRow(server_round, metrics, ledger.clock_s, ledger.energy_j, entry))
        folder.add_round(row, ledger.reports_of(server_round), ledger.refusals_of(server_round))
        if not config.unsupervised:
            self._ended = self._supervisor.look(self._rows, arrays, self._strategy)
        if config.checkpoint_every and server_round % config.checkpoint_every == 0:
            state = state_of_run(row, arrays, self._strategy, self._engine, self._supervisor)
            folder.checkpoints.save(server_round, state)
        self._show(row)
        return MetricRecord({**metrics})

    def _add(self, *new: RoundRow) -> RoundRow:
        """Add rounds; the first evaluation says what all of them are judged by."""
        rows = self._rows
        rows.extend(new)
        if self._target is not None:
            rows[-1] = replace(rows[-1], target=self._target)
        elif metrics := last_metrics(rows):
            goal, task = self._config.goal, self._task
            declared = Target(*task.target) if task.target else Target()
            usual = Target(*target_of(task.task, metrics)) if goal is None else declared
            self._target = judged_by(goal, usual, metrics)
            self._folder.judged_by(self._target)
            rows[:] = [replace(row, target=self._target) for row in rows]
        return rows[-1]

    def _show(self, row: RoundRow) -> None:
        self._tracker.write(row)
        if self._on_row is not None:
            self._on_row(row)
        goal = self._config.goal
        if (goal and holds(self._rows, goal.levels)) or spent_budgets(self._config, self._rows):
            self._ended = ""
            raise _Ended
        if self._ended:
            log(WARNING, "the run ends after round %s: %s", row.round, self._ended)
            raise _Ended

    def _check_use(self, ledger: Ledger) -> None:
        """Raise `NoClients` where the model is as it began."""
        if not any(entry.reported for entry in ledger.entries):
            unable = self._participants.unable if self._participants else {}
            reasons = sorted({*(r.decline for _, r in ledger.reports), *unable.values()} - {""})
            if failed := sum(entry.failed for entry in ledger.entries):
                reasons.append(f"{failed} trainings failed (see the log)")
            why = "; ".join(reasons[:3]) or "nobody was selected"
            raise NoClients(f"no client took part in any round: {why}")
        if all(entry.reported == entry.rejected for entry in ledger.entries):
            reason = ledger.refusals[-1] if ledger.refusals else "see the log"
            raise NoClients(f"every update was refused, the model is as it began: {reason}")


def task_of(config: RunConfig) -> FederatedTask:
    """The task that a run's clients learn, in minibatches of the usual size."""
    return federated(config, usual_batch_size(config))


def _first_model(config: RunConfig) -> nn.Module:
    """The task's model with its random initialisation, or with the weights of a checkpoint."""
    model = task_of(config).first_model()
    if config.start_from:
        load_file(model, Path(config.start_from))
    return model
