"""What one client offers, or a whole fleet: arrays, of which only changed rows are remade."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from powerctl.boards import Board
from powerctl.device import Device
from powerctl.devices.opening import open_device
from powerctl.fulcrum.plans import FRONT_POINTS
from powerctl.modes import FloatArray, IntArray
from powerctl.powertrain.correction import CorrectedPredictor, SignaturePredictor
from powerctl.workload import Workload
from wattfed.client.fleet import ClientProfile, Fleet
from wattfed.client.fleet.battery import Levels
from wattfed.client.fleet.environment import CALM, Conditions, Environment
from wattfed.client.fleet.fleet import Profiles, transfer_s
from wattfed.client.fleet.round_costs import RoundCosts
from wattfed.client.tasks.federated import FederatedTask
from wattfed.client.worker.charging import Charge, charge_of_fleet
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.mode_options import UNLEARNED, ModeOptions, mode_options
from wattfed.client.worker.serving import NO_SERVICE, TrainingOptions, service_of, training_options
from wattfed.strategies.offers import Offers
from wattfed.strategies.protocol import RoundOffer
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.state import State

_OFFERED = tuple(column.name for column in fields(RoundOffer))


class Pool:
    """The one place where offers are made: of a fleet in a simulation, of one client on a board.

    A client's front changes only when it has trained, or the rate of its requests has; who is alike
    shares one.

    Parameters
    ----------
    config : RunConfig
        The run.
    clients : IntArray, shape (n,)
        Their numbers.
    n_clients : int
        Into how many parts the data is split.
    limits : Profiles
        Their limits and links, n rows.
    around : Environment
        What goes on around them,
    costs : RoundCosts
        what rounds take of them beside the training,
    rows : IntArray, shape (n,)
        and where the columns of both have them.
    options : sequence of ModeOptions
        Of each kind of device that there is,
    kind : IntArray, shape (n,)
        and which is whose.
    charge : Charge
        What their minibatches are charged as,
    task : FederatedTask
        and of which task they are.
    labels : FloatArray, shape (n, labels), optional
        What they tell of their labels; by default as a simulation has it.
    rounds : str
        Whether rounds are real or ideal, in words, where a fleet says it.
    name : str
        What the clients are called; by default each by its board.

    Attributes
    ----------
    charge : Charge
        As given.
    charged : list of str
        What a minibatch is charged as on each kind of device, in words.
    """

    def __init__(
        self,
        config: RunConfig,
        clients: IntArray,
        n_clients: int,
        limits: Profiles,
        around: Environment,
        costs: RoundCosts,
        rows: IntArray,
        options: Sequence[ModeOptions],
        kind: IntArray,
        charge: Charge,
        task: FederatedTask,
        labels: FloatArray | None = None,
        rounds: str = "",
        name: str = "",
    ) -> None:
        n = len(clients)
        if config.no_labels:
            labels = np.zeros((n, 0))
        elif labels is None:
            labels = task.label_counts(clients, n_clients, config.label_privacy)
        self._clients, self._labels, self._n_clients = clients, labels, n_clients
        self._examples, of_epoch = task.sizes(clients, n_clients)
        self._minibatches = config.local_epochs * of_epoch
        self._limits, self._around, self._rows = limits, around, rows
        self._transfer_s = transfer_s(charge.model_bytes, limits.link_mbit_s)
        self._overhead_s, self._cold_s = costs.fixed_s[rows], costs.cold_s[rows]
        self._stays_warm = costs.stays_warm[rows]
        self._radio_j = costs.radio_j(rows, self._transfer_s)
        self._carrier_w, self._efficiency = costs.carrier_w[rows], costs.supply_efficiency[rows]
        lowest_w = np.array([one.idle_power_w for one in options])[kind]
        self._idle_w = np.where(np.isnan(costs.idle_w[rows]), lowest_w, costs.idle_w[rows])
        self._seed = config.seed
        self._levels = Levels(around.batteries, rows, around.start_s)
        self._rate_hz = np.zeros(n)
        self._spent_j, self._loss = np.zeros(n), np.full(n, np.nan)
        self._learned = np.zeros((n, 3))
        self._has_trained, self._changed, self._is_warm = (np.zeros(n, dtype=bool) for _ in "123")
        self._celsius = np.full((n, 2), np.nan)
        self._time_s, self._energy_j = (np.full((n, FRONT_POINTS), np.inf) for _ in range(2))
        self._points = np.zeros(n, dtype=np.int64)
        self._least_j = np.full(n, np.inf)
        self._maxn_s, self._maxn_j = np.zeros(n), np.zeros(n)
        self._preset_s, self._preset_j = np.zeros(n), np.zeros(n)
        self._options, self._kind = options, kind
        self._names = [name or one.board.name for one in options]
        self.charge = charge
        self.charged = [charge.expected_by(one.predictor, rounds) for one in options]
        self._beside = np.empty(n, dtype=object)
        for number, one in enumerate(options):
            self._enter_alike(one, np.flatnonzero(kind == number))

    @classmethod
    def of_fleet(cls, config: RunConfig, fleet: Fleet) -> Pool:
        """Of all clients of a fleet."""
        charge, task = charge_of_fleet(config, len(fleet))
        names, kind = np.unique(fleet.device, return_inverse=True)
        devices = [open_device(str(name)) for name in names]
        options = [
            mode_options(SignaturePredictor, one.board, one.space, charge.workload)
            for one in devices
        ]
        everyone = np.arange(len(fleet))
        return cls(
            config,
            clients=everyone,
            n_clients=len(fleet),
            limits=fleet.profiles,
            around=fleet.environment,
            costs=fleet.round_costs,
            rows=everyone,
            options=options,
            kind=kind,
            charge=charge,
            task=task,
            rounds=fleet.rounds,
        )

    @classmethod
    def of_one(
        cls,
        config: RunConfig,
        profile: ClientProfile,
        n_clients: int,
        device: Device,
        predicting: Callable[[Board, Workload], CorrectedPredictor],
        charge: Charge,
        task: FederatedTask,
        labels: FloatArray | None = None,
    ) -> Pool:
        """Of one client, on a device of which a predictor of one's own knows the costs."""
        options = mode_options(predicting, device.board, device.space, charge.workload)
        return cls(
            config,
            clients=np.array([profile.client]),
            n_clients=n_clients,
            limits=Profiles.of(profile),
            around=profile.environment,
            costs=profile.costs,
            rows=np.array([profile.row]),
            options=[options],
            kind=np.zeros(1, dtype=np.int64),
            charge=charge,
            task=task,
            labels=labels,
            rounds=profile.rounds,
            name=profile.name,
        )

    def offers(self, clock_s: float = 0.0) -> Offers:
        """The offers of all for a round that starts now; not to be kept, the arrays are shared.

        Parameters
        ----------
        clock_s : float
            The fleet's virtual clock.
        """
        self._now = now = self._conditions(clock_s)
        self._changed |= now.rate_hz != self._rate_hz
        self._rate_hz = now.rate_hz
        self._refresh(np.flatnonzero(self._changed))
        self._changed[:] = False
        width = max(1, int(self._points.max()))
        left_j = self._limits.energy_budget_j - self._spent_j
        within_j = np.maximum(0.0, np.minimum(self._limits.round_energy_j, left_j))
        self._allowance_j = np.minimum(within_j, now.spare_j)
        affordable = (self._points > 0) & (self._allowance_j >= self._least_j)
        affordable &= self._minibatches > 0
        self._able = affordable & (now.leaves_s > 0)
        return Offers(
            client=self._clients,
            examples=self._examples,
            minibatches=self._minibatches,
            loss=self._loss,
            time_s=self._time_s[:, :width],
            energy_j=self._energy_j[:, :width],
            maxn_time_s=self._maxn_s,
            idle_power_w=self._idle_w,
            transfer_s=self._transfer_s,
            allowance_j=self._allowance_j,
            able=self._able,
            maxn_energy_j=self._maxn_j,
            preset_time_s=self._preset_s,
            preset_energy_j=self._preset_j,
            label_counts=self._labels,
            battery_j=now.battery_j,
            battery_capacity_j=self._around.batteries.capacity_j[self._rows],
            available_s=now.told_s,
            overhead_s=self._overhead_s + self._warm_up_s(slice(None)),
            radio_j=self._radio_j,
            carrier_w=self._carrier_w,
            supply_efficiency=self._efficiency,
        )

    def _warm_up_s(self, rows: Sequence[int] | slice) -> FloatArray:
        """What the next first minibatch takes beyond another: of all whose process is fresh."""
        is_warm = self._stays_warm[rows] & self._is_warm[rows]
        return np.where(is_warm, 0.0, self._cold_s[rows])

    def offers_of(self, rows: Sequence[int]) -> list[RoundOffer]:
        """The offers of some clients with their modes, for the round of the last `offers`."""
        now, found = self._now, self._beside[rows]
        numbers = {
            "client": self._clients[rows],
            "examples": self._examples[rows],
            "minibatches": self._minibatches[rows],
            "loss": self._loss[rows],
            "idle_power_w": self._idle_w[rows],
            "transfer_s": self._transfer_s[rows],
            "allowance_j": self._allowance_j[rows],
            "battery_j": now.battery_j[rows],
            "battery_capacity_j": self._around.batteries.capacity_j[self._rows[rows]],
            "available_s": now.told_s[rows],
            "overhead_s": self._overhead_s[rows],
            "warm_up_s": self._warm_up_s(rows),
            "radio_j": self._radio_j[rows],
            "carrier_w": self._carrier_w[rows],
            "supply_efficiency": self._efficiency[rows],
        }
        columns: dict[str, Iterable[Any]] = {
            **{name: column.tolist() for name, column in numbers.items()},
            "front": [one.front for one in found],
            "maxn": [one.maxn for one in found],
            "preset": [one.preset for one in found],
            "decline": map(self._decline, rows, found),
            "label_counts": map(tuple, self._labels[rows].tolist()),
            "charged": [self.charged[kind] for kind in self._kind[rows].tolist()],
            "name": [self._names[kind] for kind in self._kind[rows].tolist()],
            "n_clients": repeat(self._n_clients),
        }
        return list(map(RoundOffer, *(columns[name] for name in _OFFERED)))

    def unable(self, most: int) -> dict[int, str]:
        """Why clients cannot take part in the round of the last `offers`: of so many, at most."""
        rows = np.flatnonzero(~self._able)[:most].tolist()
        return {int(self._clients[row]): self._decline(row, self._beside[row]) for row in rows}

    def _decline(self, row: int, found: TrainingOptions) -> str:
        """Why a client cannot take part, the kind of limit first; empty if it can."""
        if self._able[row]:
            return ""
        if not self._now.leaves_s[row]:
            return "away"
        if not self._minibatches[row]:
            return "it has no examples"
        if not len(found.front):
            limit_w, rate_hz = float(self._limits.power_w[row]), float(self._now.rate_hz[row])
            learned = tuple(self._learned[row].tolist())
            needed_w = math.ceil(10 * self._options[self._kind[row]].least_power_w(learned)) / 10
            if rate_hz and needed_w <= limit_w:
                return (
                    f"latency: no mode within {limit_w:g} W serves {rate_hz:g} requests/s in time"
                )
            return (
                f"power limit: no mode surely stays within {limit_w:g} W, the least takes "
                f"{needed_w:g} W"
            )
        allowance_j, least_j = float(self._allowance_j[row]), found.front.energy_j[-1]
        what = "battery" if self._now.spare_j[row] <= allowance_j else "energy budget"
        return f"{what}: {allowance_j:.3g} J left, a minibatch takes {least_j:.3g} J"

    def states_of(self, clients: Sequence[int]) -> list[ClientState]:
        """What some clients have kept from their rounds."""
        return [_state_of(*numbers) for numbers in _by_row(self._states(clients).values())]

    def keep(self, client: int, state: ClientState) -> None:
        """Keep what a client that has trained has spent and learned."""
        self._has_trained[client] = True
        self._spent_j[client], self._loss[client] = state.spent_j, state.loss
        self._is_warm[client] = state.is_warm
        self._celsius[client] = state.celsius, state.celsius_s
        if not math.isnan(state.battery_s):
            self._levels.keep(client, state.battery_j, state.battery_s)
        if tuple(self._learned[client].tolist()) != state.predictor:
            self._learned[client], self._changed[client] = state.predictor, True

    def kept(self) -> State:
        """What all clients that have trained keep: from it and the clock follows all else."""
        clients = np.flatnonzero(self._has_trained)
        return {"client": clients, **self._states(clients)}

    def _states(self, clients: Sequence[int] | IntArray) -> dict[str, NDArray[Any]]:
        """A column for each number that `_state_of` takes, in its order."""
        battery_j, battery_s = self._levels.states(np.asarray(clients, dtype=np.int64))
        return {
            "spent_j": self._spent_j[clients],
            "loss": self._loss[clients],
            "predictor": self._learned[clients],
            "battery_j": battery_j,
            "battery_s": battery_s,
            "is_warm": self._is_warm[clients],
            "celsius": self._celsius[clients],
        }

    def restore(self, kept: State) -> None:
        """Take what clients kept, in place of what they had at first."""
        for client, *numbers in _by_row(kept.values()):
            self.keep(client, _state_of(*numbers))

    def _conditions(self, clock_s: float) -> Conditions:
        n = len(self._rows)
        if self._around.is_quiet:
            return Conditions(*(np.broadcast_to(column, n) for column in CALM))
        battery_j = self._levels.at(np.arange(n), self._around.start_s + clock_s)
        return self._around.at(self._rows, self._seed, clock_s, battery_j)

    def _refresh(self, rows: IntArray) -> None:
        """Make the options of some clients anew; once for those who are alike."""
        load = self._around.inference
        own = (self._kind, self._limits.power_w, self._rate_hz)
        served = (column[self._rows[rows]] for column in (load.latency_s, load.workload))
        columns = (*(column[rows] for column in own), *served)
        values = zip(*(column.tolist() for column in columns), strict=True)
        learned = map(tuple, self._learned[rows].tolist())
        alike: dict[Any, int] = {}
        kind = [alike.setdefault(key, len(alike)) for key in zip(values, learned, strict=True)]
        found = [
            training_options(
                self._options[of], service_of(workload, rate_hz, latency_s), of_unit, limit_w
            )
            for (of, limit_w, rate_hz, latency_s, workload), of_unit in alike
        ]
        self._enter(rows, found, np.array(kind, dtype=np.int64))

    def _enter_alike(self, options: ModeOptions, rows: IntArray) -> None:
        """Units of a board that have learned nothing: all that the same modes are open to."""
        limits_w = self._limits.power_w[rows]
        _, first, kind = np.unique(
            options.count_within(limits_w), return_index=True, return_inverse=True
        )
        found = [
            training_options(options, NO_SERVICE, UNLEARNED, limit_w)
            for limit_w in limits_w[first].tolist()
        ]
        self._enter(rows, found, kind)

    def _enter(self, rows: IntArray, found: Sequence[TrainingOptions], kind: IntArray) -> None:
        """What some clients can choose from; `kind` says which of those found is whose."""
        time_s, energy_j = (np.full((len(found), FRONT_POINTS), np.inf) for _ in range(2))
        for i, front in enumerate(one.front for one in found):
            time_s[i, : len(front)], energy_j[i, : len(front)] = front.time_s, front.energy_j
        points = np.array([len(one.front) for one in found], dtype=np.int64)
        minibatches = np.maximum(self._minibatches[rows], 1)  # who has none is not able anyway
        beside_of_kind = np.empty(len(found), dtype=object)
        beside_of_kind[:] = found
        self._beside[rows] = beside_of_kind[kind]
        self._points[rows] = points[kind]
        self._least_j[rows] = energy_j[np.arange(len(found)), points - 1][kind]
        self._time_s[rows] = minibatches[:, None] * time_s[kind]
        self._energy_j[rows] = minibatches[:, None] * energy_j[kind]
        for of_mode, column_s, column_j in (
            ([one.maxn for one in found], self._maxn_s, self._maxn_j),
            ([one.preset for one in found], self._preset_s, self._preset_j),
        ):
            column_s[rows] = minibatches * np.array([held.time_s for held in of_mode])[kind]
            column_j[rows] = minibatches * np.array([held.energy_j for held in of_mode])[kind]


def _by_row(columns: Iterable[NDArray[Any]]) -> Iterator[tuple[Any, ...]]:
    """The rows of some columns, as numbers of Python."""
    return zip(*(column.tolist() for column in columns), strict=True)


def _state_of(
    spent_j: float,
    loss: float,
    learned: Sequence[float],
    battery_j: float,
    battery_s: float,
    is_warm: bool,
    heat: Sequence[float],
) -> ClientState:
    """A client's state by its row of the columns that a `Pool` has of all."""
    a, b, c = learned
    state = ClientState(spent_j, loss, (a, b, c), battery_j, battery_s, is_warm=is_warm)
    if not math.isnan(heat[0]):
        state.celsius, state.celsius_s = heat
    return state
