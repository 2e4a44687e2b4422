"""The plan: mode and batch size of one service for the rate at which its requests come now."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from powerctl.errors import InvalidInput, PowerctlError
from powerctl.fulcrum.baselines import Maxn
from powerctl.fulcrum.controller import Reaction, Serving, ServingPlan, WindowController
from powerctl.fulcrum.durations import QUANTILE, SPREAD
from powerctl.fulcrum.plans import SAFETY_DEVIATIONS
from powerctl.fulcrum.problems import Concurrent, InferAlone, Job
from powerctl.fulcrum.search import Candidates, Record
from powerctl.fulcrum.turns import ServiceSpec, TrainingJob
from powerctl.modes import FloatArray, PowerMode
from powerctl.powertrain.prediction import Prediction
from wattfed.client.agent.registry import charged_as
from wattfed.client.agent.settings import ModelFile, PlanSettings
from wattfed.client.agent.turn_engine import TurnEngine
from wattfed.client.worker.cost_models import CostModels
from wattfed.client.worker.costs import costs_file
from wattfed.client.worker.mode_options import training_workload

_LOG = logging.getLogger("wattfed.agent")


@dataclass(frozen=True)
class PlanState:
    """The plan in force: who made it from what, for what rate and limit; 0 where nobody plans."""

    origin: str = "the configuration"
    rate_hz: float = 0.0
    power_limit_w: float = 0.0
    feasible: bool = True
    changes: int = 0


class ServicePlanner:
    """Drives a `WindowController` by a service's arrivals, and puts in force what it decides.

    Every mode is looked up among what is known of the costs; none is tried. A change of mode comes
    between turns, one of batch size between batches; nothing that waits is dropped.

    Parameters
    ----------
    engine : TurnEngine
        Has the device, and the service.
    service : ServiceSpec
        Whose arrivals are followed.
    settings : PlanSettings
        Limit, training and windows.
    record : Record
        Bounds of seconds and watts of the service's batches, and of training, in every mode.
    source : str
        Where that is from, in words.
    """

    def __init__(
        self,
        engine: TurnEngine,
        service: ServiceSpec,
        settings: PlanSettings,
        record: Record,
        source: str,
    ) -> None:
        self._engine = engine
        self._name = service.name
        self._settings = settings
        self._source = source
        self._candidates = Candidates(engine.device.space)
        self._record = record
        self._arrived = 0
        self._looked_s = engine.device.now()
        self._changes = 0
        self._in_force: tuple[PowerMode, int] | None = None
        self._controller = WindowController(
            _problem(service, settings, record),
            self._candidates,
            _never,
            Maxn(),
            reaction=Reaction(
                window_s=settings.window_s, quick_s=settings.quick_s, probes=0, first_cap=1
            ),
            known=record,
            start_s=self._looked_s,
        )

    @classmethod
    def of(
        cls,
        engine: TurnEngine,
        service: ServiceSpec,
        file: ModelFile,
        plan: PlanSettings,
        known: CostModels,
    ) -> ServicePlanner:
        """A planner for a served model, from what is known of it and of the training.

        Raises
        ------
        InvalidInput
            If nothing is known of what a batch costs, or no mode keeps the power limit.
        """
        board, modes = engine.device.board, engine.device.space.arrays
        infer = charged_as(file.name, file.workload)
        jobs = {Job("infer", n): infer.with_batch_size(n) for n in service.time_s}
        if plan.training:
            jobs = {Job("train"): training_workload(plan.training), **jobs}
        try:
            found = [known.predictor(board, w).predict(modes) for w in jobs.values()]
        except InvalidInput as error:
            raise InvalidInput(
                f"cannot plan for model {file.name}: {error}; name a workload of the catalogue "
                f"with workload=, or put what is measured of it into the state directory as "
                f"tables/{infer.name}.csv or predictors/{infer.name}.json"
            ) from None
        record = Record(
            modes,
            tuple(jobs),
            np.stack([_time_bound_s(p) for p in found], axis=1),
            np.stack([p.power_bound_w(SAFETY_DEVIATIONS) for p in found], axis=1),
        )
        needed_w = _least_power_w(record)
        if plan.power_w < needed_w:
            raise InvalidInput(
                f"power is {plan.power_w:g} W, and {board.name} takes at least {needed_w:g} W for "
                f"{' and '.join(dict.fromkeys(w.name for w in jobs.values()))}: give as much, or "
                "no --power, which leaves the mode as it is"
            )
        names = dict.fromkeys(workload.name for workload in jobs.values())
        files = {name: costs_file(known.folder, name) for name in names}
        sources = [f"{n} ({path.name if path else 'its signature'})" for n, path in files.items()]
        return cls(engine, service, plan, record, " and ".join(sources))

    def state(self) -> PlanState:
        """The plan that is in force now."""
        present = self._controller.present
        return PlanState(
            origin=f"the controller, from {self._source}",
            rate_hz=present.rate_hz,
            power_limit_w=self._settings.power_w,
            feasible=present.feasible,
            changes=self._changes,
        )

    async def run(self) -> None:
        """Look at the arrivals again and again."""
        while True:
            await asyncio.sleep(self._settings.period_s)
            try:
                await asyncio.to_thread(self.look)
            except PowerctlError as error:  # the next look tries again
                _LOG.warning("the plan was not put in force: %s", error)

    def look(self) -> ServingPlan:
        """Follow the arrivals since the last look; returns what is in force from now on."""
        now_s = self._engine.device.now()
        arrived = self._engine.arrived(self._name)
        for i in range(1, arrived - self._arrived + 1):  # when exactly, is of no interest
            share = i / (arrived - self._arrived)
            self._controller.arrived(self._looked_s + share * (now_s - self._looked_s))
        self._arrived, self._looked_s = arrived, now_s
        decision = self._controller.decide(now_s)
        wanted = decision.mode, decision.batch_size
        if wanted != self._in_force:
            self._put_in_force(decision)
            self._changes += self._in_force is not None
            self._in_force = wanted
        return decision

    def _put_in_force(self, decision: ServingPlan) -> None:
        """Change the mode; times are expected to change as those that are known do."""
        before, after = self._engine.device.mode(), decision.mode
        services, training = self._engine.expected()
        try:
            self._engine.change(
                decision.mode,
                [self._planned(service, decision, before, after) for service in services],
                [self._slowed(job, before, after) for job in training],
            ).result()
        except CancelledError:
            return  # the agent stops

    def _planned(
        self, service: ServiceSpec, decision: ServingPlan, before: PowerMode, after: PowerMode
    ) -> ServiceSpec:
        own = service.name == self._name
        batch_size = decision.batch_size if own else service.batch_size
        time_s = {
            size: seconds * self._ratio(Job("infer", size), before, after)
            for size, seconds in service.time_s.items()
        }
        return replace(service, batch_size=batch_size, time_s=time_s)

    def _slowed(self, job: TrainingJob, before: PowerMode, after: PowerMode) -> TrainingJob:
        return replace(job, time_s=job.time_s * self._ratio(Job("train"), before, after))

    def _ratio(self, job: Job, before: PowerMode, after: PowerMode) -> float:
        """Time of a job after a change of mode over that before; of another job if unknown."""
        jobs = self._record.jobs
        column = jobs.index(job) if job in jobs else len(jobs) - 1
        at = [self._candidates.index(mode) for mode in (before, after)]
        before_s, after_s = self._record.time_s[at, column]
        return float(after_s / before_s)


def _least_power_w(record: Record) -> float:
    """The least limit that some mode keeps, in training and in the batch of least power."""
    is_infer = np.array([job.role == "infer" for job in record.jobs])
    infer_w = record.power_w[:, is_infer].min(axis=1)
    train_w = record.power_w[:, ~is_infer].max(axis=1, initial=0.0)
    return math.ceil(10 * float(np.maximum(infer_w, train_w).min())) / 10


def _time_bound_s(prediction: Prediction) -> FloatArray:
    """What the executor will count on: with less, a plan would have room that it has not."""
    spread = np.hypot(prediction.time_std, SPREAD)
    bound_s: FloatArray = prediction.time_s * np.exp(NormalDist().inv_cdf(QUANTILE) * spread)
    return bound_s


def _problem(service: ServiceSpec, settings: PlanSettings, record: Record) -> Serving:
    sizes = tuple(sorted(service.time_s))
    rate_hz = max(service.rate_hz, 2 * sizes[0] / service.latency_s)
    limits = (settings.power_w, rate_hz, service.latency_s, sizes)
    return Concurrent(*limits) if Job("train") in record.jobs else InferAlone(*limits)


def _never(mode: PowerMode, job: Job) -> tuple[float, float]:
    raise AssertionError(f"{job} in {mode} is known")


def model_to_plan(files: Mapping[str, ModelFile], wanted: str) -> ModelFile:
    """The model whose arrivals are planned for; raises `InvalidInput` if it is not clear which."""
    if not wanted and len(files) == 1:
        return next(iter(files.values()))
    if wanted not in files:
        names = ", ".join(files) or "none"
        raise InvalidInput(f"say in [plan] which model to plan for: model = ...; served: {names}")
    return files[wanted]
