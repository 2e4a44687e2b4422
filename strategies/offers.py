"""The offers of many clients as arrays: what selection policies compute on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.fulcrum.plans import SWITCH_S
from powerctl.modes import BoolArray, FloatArray, IntArray
from powerctl.statistics import lower_median
from wattfed.strategies.protocol import RoundOffer

# No client of a Dirichlet split of 0.3 had more than 4.2 medians (digits, 10 to 100 clients, ten
# seeds), and 3 % of one of 0.1 more than 5. Who lies has at most half of the say in a round of six.
WEIGHT_CAP = 5.0


@dataclass(frozen=True)
class Offers:
    """Offers of n clients, sorted by client, for the full local work of each.

    Attributes
    ----------
    client, examples, minibatches : IntArray, shape (n,)
        Client number, local examples, and minibatches of its full work.
    loss : FloatArray, shape (n,)
        Last training loss; NaN where unknown.
    time_s, energy_j : FloatArray, shape (n, f)
        Training time and energy of the full work at each point of the client's front, fastest
        first; infinite beyond the end of a shorter front.
    maxn_time_s : FloatArray, shape (n,)
        Training time of the full work at MAXN.
    idle_power_w, transfer_s, allowance_j : FloatArray, shape (n,)
        As in `RoundOffer`.
    able : BoolArray, shape (n,)
        Whether the client can take part within its limits.
    maxn_energy_j, preset_time_s, preset_energy_j : FloatArray, shape (n,)
        Training energy of the full work at MAXN, and time and energy in the preset for the power
        limit.
    label_counts : FloatArray, shape (n, labels)
        Examples per label; no columns where nobody tells, a row of zeros for who does not tell.
    battery_j, battery_capacity_j, available_s : FloatArray, shape (n,)
        As in `RoundOffer`.
    overhead_s, radio_j : FloatArray, shape (n,)
        Seconds of the round that are no transfer and no minibatch, warming up included, at idle
        power; and what sending and receiving takes beside the module.
    carrier_w, supply_efficiency : FloatArray, shape (n,)
        As in `RoundOffer`.
    """

    client: IntArray
    examples: IntArray
    minibatches: IntArray
    loss: FloatArray
    time_s: FloatArray
    energy_j: FloatArray
    maxn_time_s: FloatArray
    idle_power_w: FloatArray
    transfer_s: FloatArray
    allowance_j: FloatArray
    able: BoolArray
    maxn_energy_j: FloatArray
    preset_time_s: FloatArray
    preset_energy_j: FloatArray
    label_counts: FloatArray
    battery_j: FloatArray
    battery_capacity_j: FloatArray
    available_s: FloatArray
    overhead_s: FloatArray
    radio_j: FloatArray
    carrier_w: FloatArray
    supply_efficiency: FloatArray

    @classmethod
    def of(cls, offers: Sequence[RoundOffer]) -> Offers:
        """The arrays of some offers; raises `InvalidInput` if a client offers twice."""
        ordered = sorted(offers, key=lambda offer: offer.client)
        clients = [offer.client for offer in ordered]
        if len(set(clients)) < len(clients):
            raise InvalidInput(f"two nodes offer as one client: {clients}; check partition-id")
        points = max((len(offer.front) for offer in ordered), default=0)
        shape = (len(ordered), max(points, 1))
        time_s, energy_j = np.full(shape, np.inf), np.full(shape, np.inf)
        for row, offer in enumerate(ordered):
            time_s[row, : len(offer.front)] = offer.minibatches * offer.front.time_s
            energy_j[row, : len(offer.front)] = offer.minibatches * offer.front.energy_j

        def column(name: str, dtype: type = float) -> np.ndarray:
            return np.array([attrgetter(name)(offer) for offer in ordered], dtype=dtype)

        minibatches = column("minibatches", int)
        return cls(
            client=column("client", int),
            examples=column("examples", int),
            minibatches=minibatches,
            loss=column("loss"),
            time_s=time_s,
            energy_j=energy_j,
            maxn_time_s=minibatches * column("maxn.time_s"),
            idle_power_w=column("idle_power_w"),
            transfer_s=column("transfer_s"),
            allowance_j=column("allowance_j"),
            able=np.array([not offer.decline for offer in ordered], dtype=bool),
            maxn_energy_j=minibatches * column("maxn.energy_j"),
            preset_time_s=minibatches * column("preset.time_s"),
            preset_energy_j=minibatches * column("preset.energy_j"),
            label_counts=_label_counts(ordered),
            battery_j=column("battery_j"),
            battery_capacity_j=column("battery_capacity_j"),
            available_s=column("available_s"),
            overhead_s=column("overhead_s") + column("warm_up_s"),
            radio_j=column("radio_j"),
            carrier_w=column("carrier_w"),
            supply_efficiency=column("supply_efficiency"),
        )

    def __len__(self) -> int:
        return len(self.client)

    def capped(self, medians: float) -> tuple[Offers, float]:
        """The offers, in which nobody tells of more than so many medians of examples or labels.

        Medians are of those who have any, and 0 of them bound nothing; the examples that one may
        have are the second thing returned.
        """
        labels = self.label_counts.sum(axis=1)
        examples_most, labels_most = _most(self.examples, medians), _most(labels, medians)
        if not ((self.examples > examples_most).any() or (labels > labels_most).any()):
            return self, examples_most
        shares = np.minimum(1.0, labels_most / np.maximum(labels, 1.0))
        capped = replace(
            self,
            examples=np.minimum(self.examples, examples_most).astype(np.int64),
            label_counts=self.label_counts * shares[:, None],
        )
        return capped, examples_most

    def without(self, clients: Sequence[int]) -> Offers:
        """The offers of all others."""
        if not len(clients):
            return self
        keep = ~np.isin(self.client, np.asarray(clients))
        return Offers(**{item.name: getattr(self, item.name)[keep] for item in fields(self)})

    def fastest_round_s(self, power: str) -> FloatArray:
        """The shortest round per client that a power policy leaves, transfer included."""
        time_s = self._left_by(power)[0][:, 0]
        enter_s = _enter_s(time_s, self.maxn_time_s)
        return self.transfer_s + time_s + enter_s + self.overhead_s

    @property
    def idle_supply_w(self) -> FloatArray:
        """Power per client at the input of its supply while it is idle."""
        return (self.idle_power_w + self.carrier_w) / self.supply_efficiency

    @property
    def fixed_j(self) -> FloatArray:
        """Energy per client that a round takes beside training, transfer and waiting."""
        return self.overhead_s * self.idle_power_w + self.radio_j

    def fastest_energy_j(self, power: str) -> FloatArray:
        """Training energy per client at the fastest choice that a power policy leaves."""
        return self._left_by(power)[1][:, 0]

    def candidates(self, power: str) -> IntArray:
        """Rows of the clients that can take part; at MAXN, blind to limits, all that are there."""
        there = (self.available_s > 0) & (self.battery_j > 0) & (self.minibatches > 0)
        return np.flatnonzero(there if power == "maxn" else self.able)

    def choices(self, power: str, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Time and energy of the round at each choice that a power policy leaves some clients.

        All but the seconds of the transfer: the full work, the change into a mode from MAXN, in
        which boards are found, and overhead, both at idle power, and sending and receiving.

        Parameters
        ----------
        power : str
            ``"maxn"`` leaves MAXN, ``"preset"`` the preset, ``"fastest"`` the fastest choice,
            ``"slack"`` the whole front.
        rows : IntArray, shape (m,)
            Rows of the offers.

        Returns
        -------
        tuple of FloatArray, shape (m, c)
            Seconds and joules. But for MAXN, which ignores limits, what exceeds a client's
            allowance or its battery is infinite in both.
        """
        time_s, energy_j = (column[rows] for column in self._left_by(power))
        fixed_s, fixed_j = self.overhead_s[rows, None], self.fixed_j[rows, None]
        if power == "maxn":
            return time_s + fixed_s, energy_j + fixed_j
        enter_s = _enter_s(time_s, self.maxn_time_s[rows, None])
        time_s, energy_j = time_s + enter_s, energy_j + enter_s * self.idle_power_w[rows, None]
        most_j = np.minimum(self.allowance_j[rows], self.battery_j[rows])
        affordable = energy_j <= most_j[:, None]
        round_s, round_j = time_s + fixed_s, energy_j + fixed_j
        return np.where(affordable, round_s, np.inf), np.where(affordable, round_j, np.inf)

    def _left_by(self, power: str) -> tuple[FloatArray, FloatArray]:
        """Time and energy of the training at what a power policy leaves, shape (n, c)."""
        if power == "maxn":
            return self.maxn_time_s[:, None], self.maxn_energy_j[:, None]
        if power == "preset":
            return self.preset_time_s[:, None], self.preset_energy_j[:, None]
        last = 1 if power == "fastest" else self.time_s.shape[1]
        return self.time_s[:, :last], self.energy_j[:, :last]


def _most(values: IntArray | FloatArray, medians: float) -> float:
    """So many medians of the values above 0, rounded down and at least 1; infinite for 0."""
    known = values[values > 0]
    if not (medians and len(known)):
        return math.inf
    return max(1, math.floor(medians * lower_median(known)))


def _enter_s(time_s: FloatArray, maxn_time_s: FloatArray) -> FloatArray:
    """Seconds of the change into choices: none into one as fast as MAXN, which is MAXN."""
    return np.where(time_s > maxn_time_s * (1 + 1e-9), SWITCH_S, 0.0)


def _label_counts(offers: Sequence[RoundOffer]) -> FloatArray:
    """A row per offer, zeros beyond the end of a shorter list of labels."""
    labels = max((len(offer.label_counts) for offer in offers), default=0)
    counts = np.zeros((len(offers), labels))
    for row, offer in enumerate(offers):
        counts[row, : len(offer.label_counts)] = offer.label_counts
    return counts
