"""The offers of a whole fleet as arrays, of which only the rows that change are made anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from powerctl.device import open_device
from powerctl.modes import IntArray
from powerctl.powertrain.signature import SignaturePredictor
from powerctl.rounds import FRONT_POINTS
from wattfed.client.choices import UNLEARNED, Choices, choices_of
from wattfed.client.fleet import Fleet
from wattfed.client.fleet.battery import Levels
from wattfed.client.fleet.profile import transfer_s
from wattfed.client.fleet.surroundings import CALM, Conditions
from wattfed.client.local import ClientState, training_workload
from wattfed.client.serving import NO_SERVICE, Beside, beside, service_of
from wattfed.client.tasks.task import client_indices, client_labels, load_task
from wattfed.strategies.offers import Offers
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.state import State


class Pool:
    """What every client of a fleet offers and has kept from its rounds.

    The offers are, bit for bit, those that the clients would make (`client.local.LocalClient`). A
    client's front changes only when it has trained, or the rate of its requests has; who is alike
    shares one.

    Parameters
    ----------
    config : RunConfig
        The run.
    fleet : Fleet
        All clients.
    """

    def __init__(self, config: RunConfig, fleet: Fleet) -> None:
        n = len(fleet)
        workload = training_workload(config.workload)
        task = load_task(config.task, config.data_dir)
        split = client_indices(task, n, config.split, config.seed)
        self._labels = client_labels(task, n, config.split, config.seed, config.label_privacy)
        self._examples = split.sizes
        self._minibatches = config.local_epochs * -(-split.sizes // workload.batch_size)
        self._limits = fleet.profiles
        self._transfer_s = transfer_s(workload.model_bytes, fleet.profiles.link_mbit_s)
        self._around, self._seed = fleet.surroundings, config.seed
        self._levels = Levels(self._around.batteries, self._around.start_s)
        self._rate_hz = np.zeros(n)
        self._spent_j, self._loss = np.zeros(n), np.full(n, np.nan)
        self._learned = np.zeros((n, 3))
        self._has_trained, self._changed = (np.zeros(n, dtype=bool) for _ in range(2))
        self._time_s, self._energy_j = (np.full((n, FRONT_POINTS), np.inf) for _ in range(2))
        self._points = np.zeros(n, dtype=np.int64)
        self._least_j = np.full(n, np.inf)
        self._maxn_s, self._maxn_j, self._idle_w = np.zeros(n), np.zeros(n), np.zeros(n)
        self._preset_s, self._preset_j = np.zeros(n), np.zeros(n)
        self._choices: list[Choices] = []
        self._board = np.zeros(n, dtype=np.int64)
        for name in np.unique(fleet.device):
            rows = np.flatnonzero(fleet.device == name)
            self._board[rows] = len(self._choices)
            device = open_device(str(name))
            self._choices.append(
                choices_of(SignaturePredictor, device.board, device.space, workload)
            )
            self._enter_alike(self._choices[-1], rows)

    def offers(self, clock_s: float = 0.0) -> Offers:
        """The offers of all for a round that starts now; not to be kept, the arrays are shared.

        Parameters
        ----------
        clock_s : float
            The fleet's virtual clock.
        """
        now = self._conditions(clock_s)
        self._changed |= now.rate_hz != self._rate_hz
        self._rate_hz = now.rate_hz
        self._refresh(np.flatnonzero(self._changed))
        self._changed[:] = False
        width = max(1, int(self._points.max()))
        left_j = self._limits.energy_budget_j - self._spent_j
        within_j = np.maximum(0.0, np.minimum(self._limits.round_energy_j, left_j))
        allowance_j = np.minimum(within_j, now.spare_j)
        affordable = (self._points > 0) & (allowance_j >= self._least_j)
        return Offers(
            client=np.arange(len(self._points)),
            examples=self._examples,
            minibatches=self._minibatches,
            loss=self._loss,
            time_s=self._time_s[:, :width],
            energy_j=self._energy_j[:, :width],
            maxn_time_s=self._maxn_s,
            idle_power_w=self._idle_w,
            transfer_s=self._transfer_s,
            allowance_j=allowance_j,
            able=affordable & (now.leaves_s > 0),
            maxn_energy_j=self._maxn_j,
            preset_time_s=self._preset_s,
            preset_energy_j=self._preset_j,
            label_counts=self._labels,
            battery_j=now.battery_j,
            battery_capacity_j=self._around.batteries.capacity_j,
            available_s=now.told_s,
        )

    def state(self, client: int) -> ClientState:
        """What a client has kept from its rounds."""
        time, power, measured = self._learned[client].tolist()
        spent_j, loss = float(self._spent_j[client]), float(self._loss[client])
        return ClientState(spent_j, loss, (time, power, measured), *self._levels.state(client))

    def keep(self, client: int, state: ClientState) -> None:
        """A client has trained."""
        self._has_trained[client] = True
        self._spent_j[client], self._loss[client] = state.spent_j, state.loss
        self._levels.keep(client, state.battery_j, state.battery_s)
        if tuple(self._learned[client].tolist()) != state.predictor:
            self._learned[client], self._changed[client] = state.predictor, True

    def kept(self) -> State:
        """What all clients that have trained keep: from it and the clock follows all else."""
        clients = np.flatnonzero(self._has_trained)
        battery_j, battery_s = self._levels.states(clients)
        return {
            "client": clients,
            "spent_j": self._spent_j[clients],
            "loss": self._loss[clients],
            "predictor": self._learned[clients],
            "battery_j": battery_j,
            "battery_s": battery_s,
        }

    def restore(self, kept: State) -> None:
        """Take what clients kept, in place of what they had at first."""
        clients, *columns = (column.tolist() for column in kept.values())
        for client, spent_j, loss, learned, *battery in zip(clients, *columns, strict=True):
            self.keep(client, ClientState(spent_j, loss, tuple(learned), *battery))

    def _conditions(self, clock_s: float) -> Conditions:
        everyone = np.arange(len(self._points))
        if self._around.is_quiet:
            return Conditions(*(np.broadcast_to(column, len(everyone)) for column in CALM))
        battery_j = self._levels.at(everyone, self._around.start_s + clock_s)
        return self._around.at(everyone, self._seed, clock_s, battery_j)

    def _refresh(self, rows: IntArray) -> None:
        """Make the choices of some clients anew; once for those who are alike."""
        load = self._around.inference
        columns = (self._board, self._limits.power_w, self._rate_hz, load.latency_s, load.workload)
        values = zip(*(column[rows].tolist() for column in columns), strict=True)
        learned = map(tuple, self._learned[rows].tolist())
        alike: dict[Any, int] = {}
        kind = [alike.setdefault(key, len(alike)) for key in zip(values, learned, strict=True)]
        found = [
            beside(self._choices[board], service_of(workload, rate_hz, latency_s), of_unit, limit_w)
            for (board, limit_w, rate_hz, latency_s, workload), of_unit in alike
        ]
        self._enter(rows, found, np.array(kind, dtype=np.int64))

    def _enter_alike(self, choices: Choices, rows: IntArray) -> None:
        """Units of a board that have learned nothing: all that the same modes are open to."""
        limits_w = self._limits.power_w[rows]
        _, first, kind = np.unique(
            choices.count_within(limits_w), return_index=True, return_inverse=True
        )
        found = [
            beside(choices, NO_SERVICE, UNLEARNED, limit_w) for limit_w in limits_w[first].tolist()
        ]
        self._enter(rows, found, kind)
        self._idle_w[rows] = choices.idle_power_w

    def _enter(self, rows: IntArray, found: Sequence[Beside], kind: IntArray) -> None:
        """What some clients can choose from; `kind` says which of those found is whose."""
        time_s, energy_j = (np.full((len(found), FRONT_POINTS), np.inf) for _ in range(2))
        for i, front in enumerate(one.front for one in found):
            time_s[i, : len(front)], energy_j[i, : len(front)] = front.time_s, front.energy_j
        points = np.array([len(one.front) for one in found], dtype=np.int64)
        minibatches = self._minibatches[rows]
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
