"""A client in one process: its device, its data, what it has spent and learned so far."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import nn

from client.choices import choices_of
from client.fleet import ClientProfile
from client.tasks.task import Samples, client_indices, load_task
from client.training import Execution, LocalTraining, Training, execute_plan
from powerctl.boards import Board
from powerctl.device import Device, has_thermometer, module_of, open_device
from powerctl.errors import InvalidInput
from powerctl.guard import Guard, GuardLimits, Ladder, PowerGuard
from powerctl.modes import IntArray, PowerMode
from powerctl.powertrain.signature import SignaturePredictor
from powerctl.powertrain.unit import UnitPredictor
from powerctl.rounds import (
    RoundAssignment,
    RoundOffer,
    RoundPlan,
    RoundReport,
    plan_round,
)
from powerctl.workload import Workload, load_workload
from strategies.run_config import RunConfig

Progress = Callable[[list[float], PowerMode, float, float], None]


@dataclass
class ClientState:
    """What a client keeps between rounds.

    Attributes
    ----------
    spent_j : float
        Training energy so far.
    loss : float
        Last training loss.
    predictor : tuple of float
        What the predictor has learned of this unit.
    """

    spent_j: float = 0.0
    loss: float = math.nan
    predictor: tuple[float, float, float] = (0.0, 0.0, 0.0)


def training_workload(name: str) -> Workload:
    """The workload that a client is charged for; raises unless it is a training workload."""
    workload = load_workload(name)
    if workload.kind != "train":
        raise InvalidInput(f"{name} is no training workload; clients train")
    return workload


class LocalClient:
    """Offers, plans and trains for one client.

    Parameters
    ----------
    config : RunConfig
        The run.
    profile : ClientProfile
        Device, limits and link.
    n_clients : int
        Into how many parts the data is split.
    state : ClientState
        What earlier rounds left; `train` updates it.
    device : Device, optional
        What trains, and is left open; by default the profile's, opened for each round.
    predictor : callable
        From board and workload to what predicts times and powers.
    """

    def __init__(
        self,
        config: RunConfig,
        profile: ClientProfile,
        n_clients: int,
        state: ClientState,
        device: Device | None = None,
        predictor: Callable[[Board, Workload], UnitPredictor] = SignaturePredictor,
    ) -> None:
        self.config = config
        self.profile = profile
        self.state = state
        self.device = device
        self.workload = training_workload(config.workload)
        self.task = load_task(config.task, config.data_dir)
        self._n_clients = n_clients
        self._predicting = predictor

    @cached_property
    def _indices(self) -> IntArray:
        config, client = self.config, self.profile.client
        if not 0 <= client < self._n_clients:
            raise InvalidInput(f"client {client} is not one of {self._n_clients}")
        split = client_indices(self.task, self._n_clients, config.dirichlet_alpha, config.seed)
        return split[client]

    @cached_property
    def samples(self) -> Samples:
        """The client's own training samples."""
        return self.task.train_samples().take(torch.from_numpy(self._indices))

    @property
    def _minibatches_per_epoch(self) -> int:
        return math.ceil(len(self._indices) / self.workload.batch_size)

    def offer(self) -> RoundOffer:
        """What this client can do in the next round, and what it would cost."""
        return self._offer(self._open_device(server_round=0))

    def _offer(self, device: Device) -> RoundOffer:
        choices = choices_of(self._predicting, device.board, device.space, self.workload)
        front = choices.front(self.state.predictor, self.profile.limits.power_w)
        maxn_time_s, maxn_energy_j = choices.maxn(self.state.predictor)
        allowance_j = self.profile.limits.allowance_j(self.state.spent_j)
        decline = ""
        if not len(front):
            decline = f"no mode surely stays within {self.profile.limits.power_w:g} W"
        elif allowance_j < front.energy_j[-1]:
            decline = f"{allowance_j:.3g} J left, a minibatch takes {front.energy_j[-1]:.3g} J"
        return RoundOffer(
            client=self.profile.client,
            examples=len(self._indices),
            minibatches=self.config.local_epochs * self._minibatches_per_epoch,
            loss=self.state.loss,
            front=front,
            maxn_time_s=maxn_time_s,
            maxn_energy_j=maxn_energy_j,
            idle_power_w=choices.idle_power_w,
            transfer_s=self.profile.transfer_s(self.workload.model_bytes),
            allowance_j=allowance_j,
            decline=decline,
        )

    def train(
        self,
        model: nn.Module,
        assignment: RoundAssignment,
        server_round: int,
        proximal_mu: float = 0.0,
        progress: Progress | None = None,
    ) -> RoundReport:
        """Train the model in place as assigned, within this client's limits.

        Parameters
        ----------
        model : nn.Module
            Holds the global parameters; afterwards the local ones.
        assignment : RoundAssignment
            Work, deadline, energy cap and power policy.
        server_round : int
            Seeds the shuffling and the device's noise.
        proximal_mu : float
            FedProx's parameter.
        progress : callable, optional
            Told of mode, losses, seconds and joules after each minibatch.

        Returns
        -------
        RoundReport
            With no minibatches and the reason if nothing fits the limits.
        """
        device = self._open_device(server_round)
        offer = self._offer(device)
        plan = plan_round(offer, assignment, device.space.maximum)
        if plan.decline:
            return self._report(offer, assignment, plan, Execution((), 0.0, 0.0, 0.0, ""))
        start_training = getattr(self.task, "training", LocalTraining)
        training: Training = start_training(
            model,
            self.samples,
            self.workload.batch_size,
            self.config.learning_rate,
            torch.Generator().manual_seed(self._seed(server_round)),
            proximal_mu,
        )
        blind = assignment.power == "maxn"
        done = execute_plan(
            device,
            self.workload,
            plan,
            training.steps(),
            time_limit_s=assignment.deadline_s - offer.transfer_s,
            energy_cap_j=math.inf if blind else min(assignment.energy_cap_j, offer.allowance_j),
            guard=None if blind else self._guard(device, offer),
            progress=None if progress is None else partial(progress, training.losses),
        )
        self._learn(device, done, training)
        return self._report(offer, assignment, plan, done)

    def _learn(self, device: Device, done: Execution, training: Training) -> None:
        predictor = self._predictor(device)
        for segment in done.segments:
            if not math.isnan(segment.settled_power_w):
                predictor.partial_fit(segment.mode, segment.minibatch_s, segment.settled_power_w)
        self.state.predictor = predictor.state()
        self.state.spent_j += done.energy_j
        if training.losses:
            # of the first pass: how the global model fits this client, before it has adapted
            self.state.loss = float(np.mean(training.losses[: self._minibatches_per_epoch]))

    def _report(
        self,
        offer: RoundOffer,
        assignment: RoundAssignment,
        plan: RoundPlan,
        done: Execution,
    ) -> RoundReport:
        return RoundReport(
            client=offer.client,
            examples=min(offer.examples, done.minibatches * self.workload.batch_size),
            minibatches=done.minibatches,
            time_s=done.time_s,
            energy_j=done.energy_j,
            peak_power_w=done.peak_power_w,
            transfer_s=offer.transfer_s,
            idle_power_w=offer.idle_power_w,
            loss=self.state.loss,
            power_limit_w=self.profile.limits.power_w,
            allowance_j=offer.allowance_j,
            deadline_s=assignment.deadline_s,
            wanted_minibatches=assignment.minibatches,
            planned_minibatches=plan.minibatches,
            planned_time_s=plan.time_s,
            planned_energy_j=plan.energy_j,
            modes=tuple(str(segment.mode) for segment in done.segments),
            stopped=done.stopped,
            decline=plan.decline,
            guard_steps=done.guard_steps,
            guard_cause=done.guard_cause,
        )

    def _guard(self, device: Device, offer: RoundOffer) -> Guard | None:
        """Along the offer's front; None where no limit can be broken."""
        limits = GuardLimits(self.profile.limits.power_w, self.profile.limits.celsius)
        if math.isinf(limits.power_w) and not has_thermometer(module_of(device)):
            return None
        return PowerGuard(limits, Ladder(device.space, offer.front))

    def _predictor(self, device: Device) -> UnitPredictor:
        predictor = self._predicting(device.board, self.workload)
        return predictor.load_state(self.state.predictor)

    def _open_device(self, server_round: int) -> Device:
        return self.device or open_device(
            self.profile.device, unit=self.profile.unit, random_state=self._seed(server_round)
        )

    def _seed(self, server_round: int) -> int:
        entropy = (self.config.seed, server_round, self.profile.client)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])
