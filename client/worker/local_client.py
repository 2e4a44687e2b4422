"""A client in one process: its device, its data, what it has spent and learned so far."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import nn

from powerctl.accelerator import Accelerator
from powerctl.device import Device
from powerctl.devices.heated import HeatedDevice
from powerctl.devices.opening import open_device
from powerctl.errors import InvalidInput
from powerctl.fulcrum.guard import Guard, GuardLimits, Ladder, PowerGuard
from powerctl.fulcrum.plans import RoundPlan, cheapest
from powerctl.modes import FloatArray, IntArray, PowerMode
from powerctl.powertrain.correction import CorrectedPredictor
from powerctl.seeding import generators_of, seeds_of
from powerctl.task.loading import keys_of
from powerctl.task.process_memory import OUT_OF_MEMORY, ProcessMemory, counted_bytes, give_back
from powerctl.workload import Workload
from wattfed.client.fleet import ClientProfile
from wattfed.client.fleet.dropout import BATTERY
from wattfed.client.fleet.environment import CALM, Conditions
from wattfed.client.tasks.federated import FederatedTask, Settings, federated
from wattfed.client.tasks.label_noise import private_counts
from wattfed.client.worker.charging import Charge, charge_of
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.costs import NOTHING_MEASURED, SignatureCosts
from wattfed.client.worker.execution import PlanExecution, execute_plan
from wattfed.client.worker.memory_fit import (
    BATCH_SIZE,
    MachineMemory,
    UnboundedMemory,
    halved,
    how_killed,
)
from wattfed.client.worker.mode_options import mode_options
from wattfed.client.worker.pool import Pool
from wattfed.client.worker.serving import ServedRequests, service_of, training_options
from wattfed.strategies.protocol import (
    EvaluationReport,
    RoundAssignment,
    RoundOffer,
    RoundReport,
    plan_round,
)
from wattfed.strategies.run_config import RunConfig

_LOG = logging.getLogger("wattfed.client")
_NO_LABELS = np.zeros((1, 0))  # of no concern to who evaluates
_UNIT_W, _SERVING_W = 1.25, 1.5
"""Most power over what is expected at MAXN: of any unit, and of one that serves between."""
Progress = Callable[[list[float], PowerMode, float, float], None]


class RoundDraws(NamedTuple):
    """What is drawn of a client in a round: its seed, and the noise of its twin from that."""

    seed: int
    noise: Generator | None = None

    @staticmethod
    def of_fleet(config: RunConfig, server_round: int, clients: Sequence[int]) -> list[RoundDraws]:
        """Of some clients of a simulated fleet, in which a unit has its client's number."""
        seeds = seeds_of((config.seed, server_round), clients)
        return list(map(RoundDraws, seeds, generators_of(seeds, clients)))


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
    costs : SignatureCosts
        Predicts times and powers, and is told what rounds measure of them.
    node : pairs of str and value
        Of the node's own configuration: arguments of the task's functions.
    divided : (Charge, FederatedTask), optional
        What its minibatches are charged as, and their task, where the caller has both already.
    """

    def __init__(
        self,
        config: RunConfig,
        profile: ClientProfile,
        n_clients: int,
        state: ClientState,
        device: Device | None = None,
        costs: SignatureCosts = NOTHING_MEASURED,
        node: Settings = (),
        divided: tuple[Charge, FederatedTask] | None = None,
    ) -> None:
        if not 0 <= profile.client < n_clients:
            raise InvalidInput(f"client {profile.client} is not one of {n_clients}")
        self.config = config
        self.profile = profile
        self.state = state
        self.device = device
        self._node = node
        self._n_clients = n_clients
        self._costs = costs
        self._halvings = state.halvings
        self.charge, self.task = divided or self._divided()
        self._memory = UnboundedMemory()
        if profile.is_deployed:
            self._memory = MachineMemory(ProcessMemory(Accelerator.here()), state, self._halves)

    @property
    def workload(self) -> Workload:
        """What its minibatches are charged as."""
        return self.charge.workload

    def _divided(self) -> tuple[Charge, FederatedTask]:
        """Charge and task, with minibatches as small as the memory has been found to ask for."""
        config, size = halved(self.config, self._halvings)
        task = federated(config, size, self._node)
        client, folder = self.profile.client, self._costs.folder
        return charge_of(config, task, size, client, self._n_clients, folder), task

    def _halves(self) -> bool:
        """Whether the task takes a batch size from the run that can be halved."""
        return self.workload.batch_size > 1 and BATCH_SIZE in keys_of(self.task.task)

    def offer(self, clock_s: float = 0.0) -> RoundOffer:
        """What this client can do in a round that starts now, and what it would cost.

        Parameters
        ----------
        clock_s : float
            The fleet's virtual clock; of concern where batteries, availability or inference are
            simulated.
        """
        offer = self._offer(clock_s, self._private_labels())
        return replace(offer, decline=offer.decline or self._memory.lack())

    def train(
        self,
        model: nn.Module,
        assignment: RoundAssignment,
        server_round: int,
        proximal_mu: float = 0.0,
        progress: Progress | None = None,
        clock_s: float = 0.0,
        offer: RoundOffer | None = None,
        drawn: RoundDraws | None = None,
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
        clock_s : float
            As for `offer`.
        offer : RoundOffer, optional
            That of this client to which the assignment is the answer; made anew if it is lost, or
            the device has other modes now.
        drawn : RoundDraws, optional
            What is drawn of it in this round, where the caller has that already.

        Returns
        -------
        RoundReport
            With no minibatches and the reason if nothing fits the limits.
        """
        now = self._conditions(clock_s)
        seed, noise = drawn or RoundDraws(self._seed(server_round))
        device = self._open_device(seed, noise)
        if offer is None or offer.maxn.mode != device.space.maximum:
            offer = self.offer(clock_s)
        plan = plan_round(offer, assignment)
        if not (now.leaves_s[0] and now.battery_j[0]):  # even MAXN, blind to limits, needs these
            plan = RoundPlan((), offer.decline)
        if not plan.decline:
            plan = self._within_memory(plan, model)
        if plan.decline:
            return self._report(offer, assignment, plan, PlanExecution((), 0.0, 0.0, 0.0, ""))
        training = self.task.training(
            model,
            self.profile.client,
            self._n_clients,
            minibatches=plan.minibatches,
            seed=seed,
            proximal_mu=proximal_mu,
            rate=assignment.rate,
            is_shared=self.device is not None,
        )
        leaves_s, battery_j = float(now.leaves_s[0]), float(now.battery_j[0])
        beside_s = offer.transfer_s + offer.overhead_s
        begins_s = clock_s + beside_s / 2
        device = self._heated(device, offer, now, begins_s)
        dropout = self.profile.environment.failures.dropout(
            self.profile.row, self.config.seed, server_round, leaves_s, beside_s
        )
        end_s, energy_cap_j, guard = assignment.deadline_s, battery_j, None
        blind = assignment.power == "maxn"
        if not blind:
            end_s = min(end_s, offer.available_s)
            energy_cap_j = min(assignment.energy_cap_j, offer.allowance_j)
            guard = self._guard(device, offer)
        shared, served = self._serving(device, now)
        with training:
            done = execute_plan(
                shared,
                self.workload,
                plan,
                training.steps(),
                time_limit_s=min(end_s - beside_s, dropout.training_s),
                energy_cap_j=energy_cap_j,
                guard=guard,
                progress=None if progress is None else partial(progress, training.losses),
                is_cold=self._is_cold(device, "train"),
                cold_s=self._warming_s,
            )
        first = slice(offer.minibatches // self.config.local_epochs)
        first_pass, squares = training.losses[first], training.squares[first]
        smaller = self.state.halvings and self.workload.batch_size
        fitted = done.stopped != OUT_OF_MEMORY
        if not fitted:
            del training  # and with it what the error holds
            give_back()
        if done.minibatches or not fitted:
            self._memory.learn(fitted)
        self._warmed(device, done, "train")
        self._learn(device, done, first_pass)
        self._discharge(done.energy_j + offer.radio_j, begins_s + done.time_s)
        if isinstance(device, HeatedDevice):
            self.state.celsius, self.state.celsius_s = device.celsius, begins_s + done.time_s
        cut = done.stopped == "deadline" and dropout.training_s < end_s - beside_s
        empty = blind and done.stopped == "energy"
        lost = BATTERY if empty else dropout.lost(done.time_s, cut)
        if not (done.minibatches or lost):
            plan = replace(plan, decline=f"not one minibatch was done: {done.stopped}")
        more = {"rms_loss": _root_mean(squares), "batch_size": smaller, **served.report()}
        return self._report(offer, assignment, plan, done, lost=lost, **more)

    def evaluate(
        self, model: nn.Module, server_round: int, clock_s: float = 0.0
    ) -> tuple[EvaluationReport, dict[str, float]]:
        """What a model is worth on this client's own data, and what it took to find out.

        It runs within the client's limits, in the mode of least energy, until the task's `test` has
        come to its end. A minibatch is charged as one of the training, of which it is the smaller
        part; what an evaluation took that was not finished is charged too.
        """
        offer, seed = self._offer(clock_s, _NO_LABELS), self._seed(server_round)
        transfer_s = offer.transfer_s / 2
        report = EvaluationReport(
            offer.client, offer.examples, transfer_s=transfer_s, overhead_s=offer.overhead_s
        )
        if offer.decline:
            return replace(report, decline=offer.decline), {}
        device = self._open_device(seed)
        examples, most = self.task.evaluation_size(offer.client, self._n_clients)
        is_shared = self.device is not None
        shared, _ = self._serving(device, self._conditions(clock_s))
        with self.task.evaluation(
            model, offer.client, self._n_clients, seed, is_shared
        ) as evaluation:
            done = execute_plan(
                shared,
                self.workload,
                cheapest(offer.front, most, math.inf),
                evaluation.steps(),
                time_limit_s=offer.available_s - transfer_s - offer.overhead_s,
                energy_cap_j=offer.allowance_j,
                guard=self._guard(device, offer),
                is_cold=self._is_cold(device, "test"),
                cold_s=self._warming_s,
            )
        metrics = evaluation.metrics
        if done.stopped == OUT_OF_MEMORY:
            del evaluation  # and with it what the error holds
            give_back()
        self._warmed(device, done, "test")
        self.state.spent_j += done.energy_j
        self._discharge(done.energy_j, clock_s + transfer_s + offer.overhead_s + done.time_s)
        report = replace(report, time_s=done.time_s, energy_j=done.energy_j)
        if not metrics:
            why = done.stopped or f"it did not end within {most} minibatches"
            return replace(report, decline=f"the evaluation was not finished: {why}"), {}
        return replace(report, examples=examples or offer.examples), metrics

    def was_killed(self) -> str:
        """How the process died in whose round, by its state, this client still trains."""
        return how_killed(self._memory, self.state)

    def lost(self, assignment: RoundAssignment, why: str, offer: RoundOffer) -> RoundReport:
        """The report of a round of which nothing is left."""
        nothing = PlanExecution((), 0.0, 0.0, 0.0, "")
        return self._report(offer, assignment, RoundPlan((), ""), nothing, lost=why)

    def _offer(self, clock_s: float, labels: FloatArray | None) -> RoundOffer:
        if self._halvings != self.state.halvings:
            self.task.forget()  # its loaders: memory is short
            self._halvings = self.state.halvings
            self.charge, self.task = self._divided()
        device = self._open_device(seed=0)
        pool = Pool.of_one(
            self.config,
            self.profile,
            self._n_clients,
            device,
            self._costs.predictor,
            self.charge,
            self.task,
            labels,
        )
        pool.keep(0, self.state)
        pool.offers(clock_s)
        (offer,) = pool.offers_of([0])
        if device.is_virtual or not self._is_cold(device, "train"):
            return offer
        return replace(offer, warm_up_s=self.state.warm_up_s)

    def _within_memory(self, plan: RoundPlan, model: nn.Module) -> RoundPlan:
        """The plan, if its minibatches find memory; else nothing, and why."""

        def count() -> int:
            batch = self.task.first_batch(self.profile.client, self._n_clients)
            return counted_bytes(model, batch)

        lack = self._memory.lack(count)
        return RoundPlan((), lack) if lack else plan

    def _is_cold(self, device: Device, role: str) -> bool:
        """Whether the next minibatch is the first one of a function in its process."""
        return self._warming_s > 0 if device.is_virtual else role not in self.task.warm

    @property
    def _warming_s(self) -> float:
        """What the next first minibatch takes beyond another where that is simulated."""
        costs, row = self.profile.costs, self.profile.row
        return 0.0 if self.state.is_warm and costs.stays_warm[row] else float(costs.cold_s[row])

    def _heated(self, device: Device, offer: RoundOffer, now: Conditions, clock_s: float) -> Device:
        """The device with its temperature at a time, where it can become too hot."""
        costs, row, state = self.profile.costs, self.profile.row, self.state
        if not costs.k_per_w[row] or not device.is_virtual:
            return device
        thermal = costs.thermal(row)
        most_w = (
            offer.maxn.energy_j / offer.maxn.time_s * (_SERVING_W if now.rate_hz[0] else _UNIT_W)
        )
        if thermal.steady_c(most_w) <= min(self.profile.limits.celsius, thermal.throttle_c):
            return device
        celsius = thermal.steady_c(offer.idle_power_w)
        if not math.isnan(state.celsius):
            rested_s = clock_s - state.celsius_s
            celsius = thermal.after_c(state.celsius, offer.idle_power_w, rested_s)
        return HeatedDevice(device, thermal, celsius)

    def _warmed(self, device: Device, done: PlanExecution, role: str) -> None:
        if done.minibatches:
            self.task.warm.add(role)
            self.state.is_warm = True
        if done.warm_up_s and not device.is_virtual:
            self.state.warm_up_s = done.warm_up_s
            name = self.task.name
            _LOG.info("%s: first minibatch of %s warmed up for %.3g s", name, role, done.warm_up_s)

    def _learn(self, device: Device, done: PlanExecution, first_pass: list[float]) -> None:
        """Keep what a round has told of the unit, and how the global model fits this client.

        The latter is the loss of the first pass over the data, before the model has adapted.
        """
        predictor = self._predictor(device)
        seen = done.segments if device.measures_power else ()
        settled = [one for one in seen if not math.isnan(one.settled_power_w)]
        for segment in settled:
            predictor.partial_fit(segment.mode, segment.minibatch_s, segment.settled_power_w)
        self._costs.record(device.board, self.workload, settled)
        self.state.predictor = predictor.state()
        self.state.spent_j += done.energy_j
        if first_pass:
            self.state.loss = float(np.array(first_pass).sum() / len(first_pass))

    def _report(
        self,
        offer: RoundOffer,
        assignment: RoundAssignment,
        plan: RoundPlan,
        done: PlanExecution,
        **more: Any,
    ) -> RoundReport:
        round_s = done.time_s + offer.transfer_s + offer.overhead_s
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
            warm_up_s=done.warm_up_s,
            budget_left_j=self.profile.limits.energy_budget_j - self.state.spent_j,
            charged=offer.charged,
            overhead_s=offer.overhead_s,
            radio_j=offer.radio_j,
            carrier_w=offer.carrier_w,
            supply_efficiency=offer.supply_efficiency,
            answered_s=0.0 if self.profile.is_deployed else round_s,
            **more,
        )

    @property
    def _row(self) -> IntArray:
        """Where the columns of its environment have this client."""
        return np.array([self.profile.row])

    def _conditions(self, clock_s: float) -> Conditions:
        around = self.profile.environment
        if around.is_quiet:
            return CALM
        battery_j = self._battery_j(around.start_s + clock_s)
        return around.at(self._row, self.config.seed, clock_s, battery_j)

    def _battery_j(self, now_s: float) -> FloatArray:
        around, state = self.profile.environment, self.state
        if math.isnan(state.battery_s):
            state.battery_j = float(around.batteries.start_j(self._row)[0])
            state.battery_s = around.start_s
        level_j, since_s = np.array([state.battery_j]), np.array([state.battery_s])
        return around.batteries.level_j(self._row, level_j, since_s, now_s)

    def _discharge(self, energy_j: float, clock_s: float) -> None:
        """Training has taken so much energy by some time."""
        around = self.profile.environment
        if not around.is_quiet:
            now_s = around.start_s + clock_s
            self.state.battery_j = max(0.0, float(self._battery_j(now_s)[0]) - energy_j)
            self.state.battery_s = now_s

    def _serving(self, device: Device, now: Conditions) -> tuple[Device, ServedRequests]:
        """The device as training sees it, which serves requests where some come."""
        rate_hz = float(now.rate_hz[0])
        if not rate_hz:
            return device, ServedRequests()
        options = mode_options(self._costs.predictor, device.board, device.space, self.workload)
        load, row = self.profile.environment.inference, self.profile.row
        service = service_of(str(load.workload[row]), rate_hz, float(load.latency_s[row]))
        limit_w = self.profile.limits.power_w
        return training_options(options, service, self.state.predictor, limit_w).on(device)

    def _private_labels(self) -> FloatArray | None:
        """What it tells of its labels where the run wants noise on them; the same in all rounds."""
        config = self.config
        if not (self.profile.is_deployed and config.label_privacy):
            return None  # a simulation draws the noise of all from the run's seed
        if not self.state.label_counts:
            own = np.array([self.profile.client])
            (exact,) = self.task.label_counts(own, self._n_clients)
            told = private_counts(exact, config.label_privacy)
            self.state.label_counts = tuple(told.tolist())
        return np.array([self.state.label_counts])

    def _guard(self, device: Device, offer: RoundOffer) -> Guard | None:
        """Along the offer's front; None where no limit can be broken."""
        limits = self.profile.limits
        if math.isinf(limits.power_w) and not device.module.has_thermometer:
            return None
        ladder = Ladder(device.space, offer.front)
        return PowerGuard(GuardLimits(limits.power_w, limits.celsius), ladder)

    def _predictor(self, device: Device) -> CorrectedPredictor:
        predictor = self._costs.predictor(device.board, self.workload)
        return predictor.load_state(self.state.predictor)

    def _open_device(self, seed: int, noise: Generator | None = None) -> Device:
        device = self.device or open_device(
            self.profile.device, unit=self.profile.unit, random_state=seed, noise=noise
        )
        if device.is_virtual:  # the order of summation must not depend on the host's cores
            torch.set_num_threads(1)
        return device

    def _seed(self, server_round: int) -> int:
        entropy = (self.config.seed, server_round, self.profile.client)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _root_mean(squares: list[float]) -> float:
    """Of those that are finite; 0 of none."""
    finite = [square for square in squares if math.isfinite(square)]
    return math.sqrt(sum(finite) / len(finite)) if finite else 0.0
