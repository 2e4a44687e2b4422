"""What travels between the server and its clients in a round: offer, assignment and report.

The way of a round: a client makes a `RoundOffer`, the server answers with a `RoundAssignment`,
`plan_round` turns it into a `RoundPlan`, and what really happened is a `RoundReport`. All times
are seconds on the device's clock, all energies joules of the module.

A message has one ConfigRecord, as the mods of Flower that may stand around a ClientApp want it:
what the server tells all, by the keys below, and one of the three, as `encode_record` puts it: not
a MetricRecord, whose keys Flower checks across clients (a board without a sensor would end the
aggregation of all). What can stand in a field is declared in its type, and `decode_record` holds
what comes from another host to that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Annotated, Any, TypeVar, get_type_hints

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.fields import Count, Range, checked
from powerctl.fulcrum.plans import (
    FRONT_POINTS,
    TIME_RESERVE,
    FixedMode,
    Front,
    RoundPlan,
    Segment,
    cheapest,
    most_work,
)
from powerctl.modes import PowerMode

MOST_CLIENTS = 10_000_000  # policies keep some hundred bytes for each number up to the highest

ClientNumber = Annotated[int, Range(0, MOST_CLIENTS - 1)]
NodeNumber = Annotated[int, Range(0, 2**64)]  # as Flower draws them
ClientCount = Annotated[int, Range(1, MOST_CLIENTS)]
Seconds = Annotated[float, Range(0, 1e9)]
Joules = Annotated[float, Range(0, 1e12)]
Watts = Annotated[float, Range(0, 1e6)]
Efficiency = Annotated[float, Range(1e-3, 1)]
Clock = Annotated[float, Range(0, 1e15)]  # of many rounds
Pull = Annotated[float, Range(0, 1e9)]  # of FedProx
MostSeconds = Annotated[float, Range(0, 1e9, unbounded=True)]
MostJoules = Annotated[float, Range(0, 1e12, unbounded=True)]
MostWatts = Annotated[float, Range(0, 1e6, unbounded=True)]
LeftJoules = Annotated[float, Range(-1e12, 1e12, unbounded=True)]  # who is blind to it overdraws
Cost = Annotated[float, Range(1e-9, 1e9)]  # seconds or joules of a minibatch, which is not free
Costs = Annotated[tuple[Cost, ...], Range(0, FRONT_POINTS)]
Rate = Annotated[float, Range(1e-6, 1)]  # of a learning rate
Axis = Annotated[int, Range(0, 1e12)]  # of a mode
Axes = Annotated[tuple[Axis, ...], Range(0, 4 * FRONT_POINTS)]
Loss = Annotated[float, Range(-1e39, 1e39, unknown=True)]  # below 0 as the task has it
Percent = Annotated[float, Range(-1e15, 1e15, unbounded=True, unknown=True)]  # of errors
RootMeanSquare = Annotated[float, Range(0, 1e39)]
Text = Annotated[str, Range(0, 1000, printable=True)]
Name = Annotated[str, Range(0, 64, printable=True)]
Texts = Annotated[tuple[Annotated[str, Range(0, 100, printable=True)], ...], Range(0, 1000)]
LabelCounts = Annotated[tuple[Annotated[float, Range(-1e9, 1e9)], ...], Range(0, 10_000)]

VERSION = 6  # of all that is in this module: raised when a change is not understood
CONFIG = "config"  # the name of the one ConfigRecord
ARRAYS, METRICS = "arrays", "metrics"  # of the model, and of its training, in messages that have it
ROUND = "server-round"
CLOCK = "clock-s"  # the fleet's virtual clock
RUN = "run-id"  # the Flower run in which the federation began, which it may outlive
TASK = "task-hash"  # of the code of the server's task, which must be the client's
PROTOCOL = "protocol"  # the server's `VERSION`
WEIGHT = "num-examples"  # the metric by which Flower's strategies weigh updates
POWER_POLICIES = ("maxn", "preset", "fastest", "slack")


@dataclass(frozen=True)
class RoundOffer:
    """What a device can do in the next round.

    Attributes
    ----------
    client : int
        Stable number of the client (its partition).
    n_clients : int
        Into how many partitions the data is split.
    examples, minibatches : int
        Local training examples, and minibatches of the full local work.
    loss : float
        Last training loss; NaN before the first round.
    front : Front
        Choices within the power limit; empty if there is none.
    maxn, preset : FixedMode
        MAXN, in which the device is found, and the preset that a user would set for the power
        limit (`Board.preset_within`).
    idle_power_w : float
        Power while waiting.
    transfer_s : float
        Download and upload of the model.
    allowance_j : float
        Energy that this round may take.
    decline : str
        Why the device cannot take part; empty if it can.
    label_counts : tuple of float
        Local examples per label, with noise where privacy asks for it; empty if not told.
    battery_j, battery_capacity_j : float
        Energy left in the battery, and in a full one; infinite on mains.
    available_s : float
        How long the device expects to stay; infinite if it foresees no end.
    charged : str
        The workload that a minibatch is charged as, and what its costs are from, in words.
    overhead_s : float
        Seconds of the round that are no training and no transfer, at idle power.
    warm_up_s : float
        What the first minibatch is expected to take beyond another, in a process that has run none.
    radio_j : float
        What sending and receiving takes beside the module.
    carrier_w, supply_efficiency : float
        What the carrier board takes beside the module, and the share of its input that the supply
        gives to both.
    name : str
        What its operator calls it (`name` of the node configuration), else its board.
    """

    client: ClientNumber
    n_clients: ClientCount
    examples: Count
    minibatches: Count
    loss: Loss
    front: Front
    maxn: FixedMode
    preset: FixedMode
    idle_power_w: Watts
    transfer_s: Seconds
    allowance_j: MostJoules
    decline: Text = ""
    label_counts: LabelCounts = ()
    battery_j: MostJoules = math.inf
    battery_capacity_j: MostJoules = math.inf
    available_s: MostSeconds = math.inf
    charged: Text = ""
    overhead_s: Seconds = 0.0
    warm_up_s: Seconds = 0.0
    radio_j: Joules = 0.0
    carrier_w: Watts = 0.0
    supply_efficiency: Efficiency = 1.0
    name: Name = ""


@dataclass(frozen=True)
class RoundAssignment:
    """What the server wants of a device.

    Attributes
    ----------
    client : int
        Whom it is for.
    minibatches : int
        Local work wanted.
    deadline_s : float
        Time from the round's start to the end of the upload.
    energy_cap_j : float
        The device's own allowance holds as well.
    power : str
        ``"slack"``: the least energy that meets the deadline; ``"fastest"``: as fast as the power
        limit allows; ``"preset"``: the preset for the power limit, what a user without powerctl
        sets; ``"maxn"``: MAXN, blind to limits and budget (the baseline without power awareness).
    rate : float
        Factor on the learning rate of the task's optimizer.
    """

    client: ClientNumber
    minibatches: Count
    deadline_s: MostSeconds = math.inf
    energy_cap_j: MostJoules = math.inf
    power: Text = "slack"
    rate: Rate = 1.0

    def __post_init__(self) -> None:
        if self.power not in POWER_POLICIES:
            raise InvalidInput(f"power policy is one of {POWER_POLICIES}, not {self.power!r}")
        if self.minibatches < 1 or not self.deadline_s > 0 or not self.energy_cap_j >= 0:
            raise InvalidInput(f"an assignment of nothing: {self}")


@dataclass(frozen=True)
class RoundReport:
    """What a round took on a device, beside what was planned.

    `time_s` and `energy_j` are of the training alone; `transfer_s`, `overhead_s` and waiting come
    on top, all three at idle power, and what is taken beside the module: `radio_j` by sending and
    receiving, `carrier_w` all the time, and what the supply loses, by its efficiency. The
    work is counted as wanted by the server, planned within the limits, and done. `peak_power_w` is
    the highest mean over a second. `stopped` is empty, ``"deadline"``, ``"energy"`` or ``"out of
    memory"``: why training ended before the plan did. `decline` says why nothing was trained.
    `rms_loss` is the root mean square of the samples' losses behind `loss`; 0 where it was not
    measured. `used` is False if the update came after the round had closed and was dropped;
    `staleness` says how many rounds old the
    model was from which it started. `inference_p99_s` is the 99th percentile of the latency of what
    the device served meanwhile, of its slowest service; 0 where it served nothing, and
    `inference_budget_s` is the latency it may have. `guard_steps` counts how often the power guard
    stepped down, `guard_cause` says what the last step was for. `inference_energy_j` is what the
    requests took that were served meanwhile, which is not in `energy_j`. `lost` says why the update
    never came: in simulations ``"crashed"``, ``"left"``, ``"battery"`` or ``"silent"`` (a server
    does not hear from such a client, but what it did is charged), else how its agent was killed.
    `budget_left_j` is what is left of the device's energy budget after the round; infinite without
    one. `batch_size` is that of minibatches smaller than the run's, for want of memory; else 0.
    `warm_up_s` is what the first minibatch of the task in a process took beyond another, which is
    in `time_s`; 0 in other rounds. `charged` says by what it was planned, as the offer does.
    `answered_s` is how long the server waited for the reply; a simulated client says it itself.
    """

    client: ClientNumber
    examples: Count
    minibatches: Count
    time_s: Seconds
    energy_j: Joules
    peak_power_w: Watts
    transfer_s: Seconds
    idle_power_w: Watts
    loss: Loss
    power_limit_w: MostWatts
    allowance_j: MostJoules
    deadline_s: MostSeconds
    wanted_minibatches: Count
    planned_minibatches: Count
    planned_time_s: Seconds
    planned_energy_j: Joules
    modes: Texts = field(default=())
    stopped: Text = ""
    decline: Text = ""
    rms_loss: RootMeanSquare = 0.0
    used: bool = True
    staleness: Count = 0
    inference_p99_s: Seconds = 0.0
    guard_steps: Count = 0
    guard_cause: Text = ""
    inference_budget_s: MostSeconds = math.inf
    inference_energy_j: Joules = 0.0
    lost: Text = ""
    budget_left_j: LeftJoules = math.inf
    batch_size: Count = 0
    warm_up_s: Seconds = 0.0
    charged: Text = ""
    overhead_s: Seconds = 0.0
    radio_j: Joules = 0.0
    carrier_w: Watts = 0.0
    supply_efficiency: Efficiency = 1.0
    answered_s: Seconds = 0.0

    @property
    def round_s(self) -> float:
        """Seconds from the round's start to the end of the upload."""
        return self.time_s + self.transfer_s + self.overhead_s

    @property
    def expected_time_s(self) -> float:
        """The plan's seconds, for the work that was really done."""
        return self.planned_time_s * self.minibatches / self.planned_minibatches

    @property
    def expected_energy_j(self) -> float:
        """The plan's joules, for the work that was really done."""
        return self.planned_energy_j * self.minibatches / self.planned_minibatches

    @property
    def broke_power_limit(self) -> bool:
        """Whether power exceeded the device's limit."""
        return self.peak_power_w > self.power_limit_w

    @property
    def broke_budget(self) -> bool:
        """Whether training took more energy than the device allowed."""
        return self.energy_j > self.allowance_j

    @property
    def broke_latency(self) -> bool:
        """Whether inference took longer than its budget meanwhile."""
        return self.inference_p99_s > self.inference_budget_s


@dataclass(frozen=True)
class EvaluationReport:
    """What the evaluation of a global model took on a device; its metrics travel beside it.

    `examples` weigh the metrics; `time_s` and `energy_j` are of the evaluation alone, `transfer_s`
    is the download of the model, `overhead_s` what else it took. `decline` says why nothing was
    evaluated.
    """

    client: ClientNumber
    examples: Count
    time_s: Seconds = 0.0
    energy_j: Joules = 0.0
    transfer_s: Seconds = 0.0
    decline: Text = ""
    overhead_s: Seconds = 0.0


def plan_round(offer: RoundOffer, assignment: RoundAssignment) -> RoundPlan:
    """The device's plan for an assignment, never above its limits.

    If the whole work does not fit into deadline and energy, the most work that does; if not even
    one minibatch fits, a plan of nothing with the reason. The policy ``"maxn"`` is planned at
    MAXN in any case.

    Parameters
    ----------
    offer : RoundOffer
        The device's offer: its choices and allowance.
    assignment : RoundAssignment
        What the server wants.
    """
    wanted, maxn = assignment.minibatches, offer.maxn
    if assignment.power == "maxn":
        plan = RoundPlan((Segment(maxn.mode, wanted, maxn.time_s, maxn.energy_j),))
        return _with_warm_up(plan, offer)
    if offer.decline:
        return RoundPlan((), offer.decline)
    front = offer.front
    if assignment.power == "fastest":
        front = Front(front.modes[:1], front.time_s[:1], front.energy_j[:1])
    elif assignment.power == "preset":
        mode, time_s, energy_j = offer.preset
        front = Front((mode,), np.array([time_s]), np.array([energy_j]))
    end_s = min(assignment.deadline_s, offer.available_s)
    deadline_s = (end_s - offer.transfer_s - offer.overhead_s) * (1 - TIME_RESERVE)
    cap_j = min(assignment.energy_cap_j, offer.allowance_j)
    least = partial(cheapest, front, found=maxn.mode, idle_power_w=offer.idle_power_w)
    warm_up_j = offer.warm_up_s * offer.idle_power_w
    plan = most_work(least, wanted, deadline_s - offer.warm_up_s, cap_j - warm_up_j)
    return _with_warm_up(plan, offer)


def _with_warm_up(plan: RoundPlan, offer: RoundOffer) -> RoundPlan:
    if not offer.warm_up_s or plan.decline:
        return plan
    enter_j = plan.enter_j + offer.warm_up_s * offer.idle_power_w
    return replace(plan, enter_s=plan.enter_s + offer.warm_up_s, enter_j=enter_j)


def check_protocol(who: str, version: object) -> None:
    """Raise `InvalidInput` if somebody speaks another version of the protocol than this process."""
    if version != VERSION:
        raise InvalidInput(
            f"{who} speaks protocol {version or 'none'}, this process protocol {VERSION}: install "
            "the same version of wattfed on both"
        )


_PREFIX: dict[type, str] = {
    RoundOffer: "offer.",
    RoundAssignment: "assignment.",
    RoundReport: "report.",
    EvaluationReport: "evaluation.",
}
_HINTS = {kind: get_type_hints(kind, include_extras=True) for kind in _PREFIX}
_COSTS = ("time_s", "energy_j")
Record = TypeVar("Record", RoundAssignment, RoundReport, RoundOffer, EvaluationReport)


def encode_record(record: Record) -> dict[str, Any]:
    """What a ConfigRecord holds of a record: its fields, after a prefix of its kind."""
    values: dict[str, Any] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, FixedMode):
            values |= {f"{item.name}_{name}": each for name, each in value._asdict().items()}
            values[f"{item.name}_mode"] = list(value.mode.values)
        elif isinstance(value, Front):
            values["modes"] = [axis for mode in value.modes for axis in mode.values]
            values["time_s"] = [float(t) for t in value.time_s]
            values["energy_j"] = [float(e) for e in value.energy_j]
        else:
            values[item.name] = list(value) if isinstance(value, tuple) else value
    return {_PREFIX[type(record)] + name: value for name, value in values.items()}


def decode_record(kind: type[Record], config: Mapping[str, Any]) -> Record:
    """The record of a kind that a ConfigRecord holds.

    It comes from another host, and whoever uses it must not stumble over what it says.

    Raises
    ------
    InvalidInput
        If there is none, or it says what cannot be.
    """
    prefix = _PREFIX[kind]
    values = {key[len(prefix) :]: one for key, one in config.items() if key.startswith(prefix)}
    try:
        decoded = kind(**{name: _read(values, name, hint) for name, hint in _HINTS[kind].items()})
        _check(decoded)
    except InvalidInput as error:
        raise InvalidInput(f"not a {kind.__name__}: {error}") from None
    return decoded


def _read(values: Mapping[str, Any], name: str, hint: Any) -> Any:
    """A field of a record; raises `InvalidInput` if it is missing, or is what it cannot be."""
    if hint is FixedMode:
        mode = _modes(values, f"{name}_mode")
        if len(mode) != 1:
            raise InvalidInput(f"{name}_mode is {len(mode)} modes and must be one")
        costs = (_read(values, f"{name}_{part}", Cost) for part in _COSTS)
        return FixedMode(mode[0], *costs)
    if hint is Front:
        modes = _modes(values, "modes")
        time_s, energy_j = (np.array(_read(values, key, Costs), float) for key in _COSTS)
        if not len(modes) == len(time_s) == len(energy_j):
            raise InvalidInput("its front has not one time and energy for each mode")
        return Front(modes, time_s, energy_j)
    if name not in values:
        raise InvalidInput(f"{name} is missing")
    return checked(name, values[name], hint)


def _modes(values: Mapping[str, Any], name: str) -> tuple[PowerMode, ...]:
    axes = _read(values, name, Axes)
    if len(axes) % 4:
        raise InvalidInput(f"{name} has {len(axes)} numbers and must have four for each mode")
    return tuple(PowerMode(*axes[i : i + 4]) for i in range(0, len(axes), 4))


def _check(record: Record) -> None:
    """Raise `InvalidInput` for fields that do not go together."""
    if isinstance(record, RoundReport) and (record.staleness or not record.used):
        raise InvalidInput("staleness and used are the server's to say")
    if isinstance(record, RoundReport) and record.minibatches:
        if not (record.time_s and record.energy_j and record.examples):
            raise InvalidInput(f"{record.minibatches} minibatches for nothing")
        if record.minibatches > record.planned_minibatches:
            raise InvalidInput(
                f"{record.minibatches} minibatches of {record.planned_minibatches} planned"
            )
    if isinstance(record, RoundOffer):
        if record.client >= record.n_clients:
            raise InvalidInput(f"client {record.client} is not one of {record.n_clients}")
        if not (record.front.modes or record.decline):
            raise InvalidInput("it offers no mode, and does not decline")
        if record.minibatches and not record.examples:
            raise InvalidInput(f"{record.minibatches} minibatches of no examples")
        if not (record.minibatches or record.decline):
            raise InvalidInput("it offers no work, and does not decline")
