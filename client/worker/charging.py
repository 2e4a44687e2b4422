"""What a minibatch of a client is charged as: the workload that a run names, or the task's own.

A task of somebody's own has a workload of its own, named by task, code and batch size: it is
counted from one minibatch when it is first seen, and kept in a file. A task that comes with
wattfed is charged as a calibrated network, as nobody would deploy the toy that it is. A workload
that a run names stands for the whole minibatch, and for the model that travels.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from powerctl.powertrain.correction import CorrectedPredictor, SignaturePredictor
from powerctl.reading import in_line
from powerctl.workload import Workload
from wattfed.client.tasks.federated import FederatedTask, Settings, federated, is_built_in
from wattfed.client.worker.costs import CALIBRATED, COUNTED, MEASURED, costs_file, counted_in
from wattfed.client.worker.mode_options import training_workload
from wattfed.client.worker.model_arrays import arrays_of
from wattfed.strategies.run_config import RunConfig

if TYPE_CHECKING:
    from powerctl.pagoda.counted import CountedTask

USUAL = "mobilenetv3-train"  # of tasks of ours, and in place of what cannot be counted
NAMED = "named"
_LOG = logging.getLogger("wattfed.client")


@dataclass(frozen=True)
class Charge:
    """A workload that minibatches are charged as, and what its costs are from.

    Attributes
    ----------
    workload : Workload
        Of a minibatch.
    origin : str
        What its costs are from, in words.
    model_bytes : int
        Of the model's arrays, which travel to a client and back.
    """

    workload: Workload
    origin: str
    model_bytes: int

    def __str__(self) -> str:
        return self.told()

    def told(self, rounds: str = "") -> str:
        """The charge in words, and what rounds those of a fleet are."""
        return f"{self.workload.name} ({', '.join(filter(None, (self.origin, rounds)))})"

    def expected_by(self, predictor: CorrectedPredictor, rounds: str = "") -> str:
        """The same where a predictor may know more than the workload's signature."""
        known = isinstance(predictor, SignaturePredictor)
        return (self if known else replace(self, origin=MEASURED)).told(rounds)


def named_workload(config: RunConfig) -> str:
    """The workload that a run is charged as by its name; empty for the task's own."""
    return config.workload or (USUAL if is_built_in(config.task) else "")


def costs_source(config: RunConfig, folder: Path, node: Settings) -> str:
    """What a client's predictor is from, in a word: what a unit has learned is learned over that.

    Parameters
    ----------
    config : RunConfig
    folder : Path
        The state directory.
    node : pairs of str and value
        Of the node's configuration.
    """
    name, own = named_workload(config), ""
    if not name:
        task = federated(config, usual_batch_size(config), node)
        name = own = task.counted(0, 1).name(task.batch_size)
    file = costs_file(folder, name)
    return file.name if file else own


def usual_batch_size(config: RunConfig) -> int:
    """Samples of a minibatch where the settings of a run do not say it."""
    return training_workload(named_workload(config) or USUAL).batch_size


def charge_of(
    config: RunConfig,
    task: FederatedTask,
    batch_size: int,
    client: int,
    n_clients: int,
    folder: Path | None = None,
) -> Charge:
    """What minibatches of a run are charged as.

    Parameters
    ----------
    config : RunConfig
    task : FederatedTask
        Its task, which keeps what was counted.
    batch_size : int
        Samples of a minibatch that is charged by name.
    client, n_clients : int
        Whose data a minibatch is counted from, if none was counted before.
    folder : Path, optional
        The state directory, in which what was counted is kept; else it is in the home folder.
    """
    if name := named_workload(config):
        workload = training_workload(name)
        if workload.batch_size != batch_size:
            workload = workload.with_batch_size(batch_size)
        return Charge(workload, NAMED if config.workload else CALIBRATED, workload.model_bytes)
    if task.own_charge is None:
        task.own_charge = _own(task, task.counted(client, n_clients, folder and counted_in(folder)))
    return task.own_charge


def charge_of_fleet(config: RunConfig, n_clients: int) -> tuple[Charge, FederatedTask]:
    """What all clients of a simulated fleet are charged as, and their task.

    A minibatch is counted from the first client that has a whole one, or from the one that comes
    nearest to it.
    """
    size = usual_batch_size(config)
    task = federated(config, size)
    client = 0
    if not named_workload(config) and task.own_charge is None:
        client = _with_a_whole_minibatch(task, n_clients)
    return charge_of(config, task, size, client, n_clients), task


def _with_a_whole_minibatch(task: FederatedTask, n_clients: int) -> int:
    most, fullest = 0, 0
    for client in range(n_clients):
        examples = int(task.sizes(np.array([client]), n_clients)[0][0])
        if examples > most:
            most, fullest = examples, client
        if most >= task.batch_size:
            break
    return fullest


def _own(task: FederatedTask, counted: CountedTask) -> Charge:
    """The workload of a task of somebody's own; a small network's costs if it cannot be counted."""
    workload, origin = counted.known(task.batch_size), COUNTED
    if not workload.counted_share:
        origin = f"as {USUAL}: it cannot be counted"
        _LOG.warning("%s %s", workload.name, in_line(workload.source, 300))
    travels = arrays_of(task.first_model()).values()
    return Charge(workload, origin, sum(array.nbytes for array in travels))
