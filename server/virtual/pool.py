"""The offers of a whole fleet as arrays, of which only the rows that change are made anew."""

from __future__ import annotations

import numpy as np

from client.choices import UNLEARNED, Choices, Learned, choices_of
from client.fleet import Fleet
from client.fleet.profile import transfer_s
from client.local import ClientState, training_workload
from client.tasks.task import client_indices, load_task
from powerctl.device import open_device
from powerctl.modes import IntArray
from powerctl.powertrain.signature import SignaturePredictor
from powerctl.rounds import FRONT_POINTS
from strategies.offers import Offers
from strategies.run_config import RunConfig


class Pool:
    """What every client of a fleet offers and has kept from its rounds.

    The offers are, bit for bit, those that the clients would make (`client.local.LocalClient`). A
    client's front changes only when it has trained; clients of one board and power limit share one
    until then.

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
        split = client_indices(task, n, config.dirichlet_alpha, config.seed)
        self._examples = split.sizes
        self._minibatches = config.local_epochs * -(-split.sizes // workload.batch_size)
        self._limits = fleet.profiles
        self._transfer_s = transfer_s(workload.model_bytes, fleet.profiles.link_mbit_s)
        self._spent_j, self._loss = np.zeros(n), np.full(n, np.nan)
        self._learned = np.zeros((n, 3))
        self._time_s, self._energy_j = (np.full((n, FRONT_POINTS), np.inf) for _ in range(2))
        self._points = np.zeros(n, dtype=np.int64)
        self._least_j = np.full(n, np.inf)
        self._maxn_s, self._maxn_j, self._idle_w = np.zeros(n), np.zeros(n), np.zeros(n)
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

    def offers(self) -> Offers:
        """The offers of all for a round that starts now; not to be kept, the arrays are shared."""
        width = max(1, int(self._points.max()))
        left_j = self._limits.energy_budget_j - self._spent_j
        allowance_j = np.maximum(0.0, np.minimum(self._limits.round_energy_j, left_j))
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
            able=(self._points > 0) & (allowance_j >= self._least_j),
            maxn_energy_j=self._maxn_j,
        )

    def state(self, client: int) -> ClientState:
        """What a client has kept from its rounds."""
        time, power, measured = self._learned[client].tolist()
        return ClientState(
            float(self._spent_j[client]), float(self._loss[client]), (time, power, measured)
        )

    def keep(self, client: int, state: ClientState) -> None:
        """A client has trained."""
        self._spent_j[client], self._loss[client] = state.spent_j, state.loss
        if tuple(self._learned[client].tolist()) != state.predictor:
            self._learned[client] = state.predictor
            choices = self._choices[self._board[client]]
            self._enter(
                choices, np.array([client]), float(self._limits.power_w[client]), state.predictor
            )

    def _enter_alike(self, choices: Choices, rows: IntArray) -> None:
        """Units of a board that have learned nothing: all that the same modes are open to."""
        open_modes = choices.count_within(self._limits.power_w[rows])
        for count in np.unique(open_modes):
            alike = rows[open_modes == count]
            self._enter(choices, alike, float(self._limits.power_w[alike[0]]), UNLEARNED)
        self._idle_w[rows] = choices.idle_power_w

    def _enter(
        self, choices: Choices, rows: IntArray, power_limit_w: float, learned: Learned
    ) -> None:
        front = choices.front(learned, power_limit_w)
        n, minibatches = len(front), self._minibatches[rows]
        for column, per_minibatch in (
            (self._time_s, front.time_s),
            (self._energy_j, front.energy_j),
        ):
            column[rows] = np.inf
            column[rows, :n] = minibatches[:, None] * per_minibatch
        self._points[rows] = n
        self._least_j[rows] = front.energy_j[-1] if n else np.inf
        maxn_time_s, maxn_energy_j = choices.maxn(learned)
        self._maxn_s[rows] = minibatches * maxn_time_s
        self._maxn_j[rows] = minibatches * maxn_energy_j
