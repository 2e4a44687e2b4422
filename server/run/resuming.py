"""A run's state after a round, and going on from it as if nothing had happened.

A round draws its random numbers from a stream of its own, made from seed and round, so that there
is no generator to keep. The ledger is in the files of rounds and reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from logging import INFO, WARNING

from flwr.app import ArrayRecord
from flwr.common.logger import log

from powerctl.errors import InvalidInput
from wattfed.client.worker.charging import named_workload
from wattfed.server.run.engine import RoundEngine
from wattfed.server.run.history import RoundRow
from wattfed.server.run.results import ResultsFolder, read_config, read_run, rounds_saved
from wattfed.server.run.supervisor import Supervisor
from wattfed.strategies.code_version import files_hash
from wattfed.strategies.round.ledger import Ledger
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.run_config import FREE, RunConfig, changes_between
from wattfed.strategies.state import State
from wattfed.strategies.target import Target, judged_by


def state_of_run(
    row: RoundRow,
    arrays: ArrayRecord,
    strategy: SelectingStrategy,
    engine: RoundEngine,
    supervisor: Supervisor,
) -> State:
    """All that the rounds after this one depend on."""
    return {
        "round": row.round,
        "code": files_hash(),
        "metrics": tuple(row.metrics),
        "model": arrays,
        "strategy": strategy.state(),
        "engine": engine.state(),
        "supervisor": supervisor.state(),
    }


def go_on(
    folder: ResultsFolder,
    config: RunConfig,
    strategy: SelectingStrategy,
    engine: RoundEngine,
    supervisor: Supervisor,
) -> tuple[ArrayRecord, Sequence[RoundRow]] | None:
    """Bring a fresh strategy and engine to where the folder's run was at its last checkpoint.

    Returns
    -------
    tuple of ArrayRecord and sequence of RoundRow, or None
        The model and the rounds until then. None if the folder has no checkpoint.

    Raises
    ------
    InvalidInput
        If the run was configured otherwise, naming what differs, has more rounds already than it
        shall have, or no checkpoint is whole.
    UnknownName
        If it shall be judged by a metric that its evaluation does not give.
    """
    state = folder.checkpoints.last()
    if state is None:
        hint = _same_by_other_names(folder, config)
        log(WARNING, "%s: no checkpoint to go on from, the run begins%s", folder.path, hint)
        return None
    _check_same(folder, config)
    if state["round"] > config.rounds:
        raise InvalidInput(
            f"{folder.path} has {state['round']} rounds already; give rounds as many, or more"
        )
    if metrics := state.get("metrics"):
        judged_by(config.goal, Target(metrics[0]), metrics)  # raises while nothing is touched yet
    if state["code"] != files_hash():
        log(
            WARNING,
            "%s was begun by other code: what follows may differ from a run without a break",
            folder.path,
        )
    try:
        engine.restore(state["engine"])
        strategy.restore(state["strategy"], Ledger())  # a refusal leaves the folder as it is
        folder.go_on(config, state)
        recorded = read_run(folder.path)
        strategy.restore(state["strategy"], recorded.ledger)
        if "supervisor" in state:  # since there is one
            supervisor.restore(state["supervisor"])
    except (InvalidInput, KeyError, TypeError) as error:
        raise InvalidInput(f"{folder.path}: cannot go on: {error}") from None
    log(INFO, "goes on after round %s", state["round"])
    return state["model"], recorded.rows


def _same_by_other_names(folder: ResultsFolder, config: RunConfig) -> str:
    """Which runs beside it have its configuration and could go on, in words; empty for none."""
    same = []
    for path in sorted(folder.path.parent.iterdir()):
        with suppress(InvalidInput):  # of what is no run
            was = read_config(path).to_flower()
            if rounds_saved(path) and not changes_between(was, config.to_flower(), FREE):
                same.append(path.name)
    return f"; one that is configured alike goes on with name {' or '.join(same)}" if same else ""


def _check_same(folder: ResultsFolder, config: RunConfig) -> None:
    was, now = (
        one.to_flower() | {"workload": named_workload(one)}
        for one in (read_config(folder.path), config)
    )
    if changes := changes_between(was, now, FREE):
        raise InvalidInput(
            f"{folder.path} holds another run: {', '.join(changes)}; give another name or out-dir, "
            "or begin anew without resume"
        )
