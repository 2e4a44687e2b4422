"""What a round takes of simulated clients beside minibatches and transfers, by columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import numpy as np

from powerctl.boards import Board
from powerctl.cost_model import idle_power_w
from powerctl.errors import InvalidInput, UnknownName
from powerctl.modes import BoolArray, FloatArray, IntArray, PowerMode
from powerctl.reading import read_toml
from powerctl.thermal import Thermal
from wattfed.client.fleet.columns import FleetColumns, check_keys, number_column

_WORDS = {"link", "agent"}


@dataclass(frozen=True, eq=False)
class RoundCosts(FleetColumns):
    """What comes beside minibatches and transfers; arrays of shape (n,).

    Attributes
    ----------
    stays_warm : BoolArray
        Whether an agent keeps the client's process from round to round.
    fixed_s : FloatArray
        Seconds of each round that are no training and no transfer, at idle power.
    cold_s : FloatArray
        What the first minibatch in a process takes beyond another, at idle power.
    idle_w : FloatArray
        Module power while it does nothing, in the mode in which the board is left.
    send_w, receive_w, tail_j : FloatArray
        Power of the network interface beyond idle, and its joules after each transfer.
    carrier_w : FloatArray
        Power of the carrier board, beside the module's rails.
    supply_efficiency : FloatArray
        Share of the power at the socket that arrives.
    ambient_c, k_per_w, tau_s, throttle_c : FloatArray
        As in `powerctl.thermal.Thermal`; without resistance nothing heats up.
    """

    stays_warm: BoolArray
    fixed_s: FloatArray = number_column(0.0, least=0.0)
    cold_s: FloatArray = number_column(0.0, least=0.0)
    idle_w: FloatArray = number_column(0.0, least=0.0)
    send_w: FloatArray = number_column(0.0, least=0.0)
    receive_w: FloatArray = number_column(0.0, least=0.0)
    tail_j: FloatArray = number_column(0.0, least=0.0)
    carrier_w: FloatArray = number_column(0.0, least=0.0)
    supply_efficiency: FloatArray = number_column(1.0, above=0.0)
    ambient_c: FloatArray = number_column(25.0)
    k_per_w: FloatArray = number_column(0.0, least=0.0)
    tau_s: FloatArray = number_column(1.0, above=0.0)
    throttle_c: FloatArray = number_column(np.inf)

    @classmethod
    def of_board(
        cls,
        board: Board,
        link_mbit_s: FloatArray,
        table: Mapping[str, Any] = MappingProxyType({}),
        is_ideal: bool = False,
    ) -> RoundCosts:
        """Of clients of one board; what the table leaves out is of ``real_rounds.toml``.

        Parameters
        ----------
        board : Board
        link_mbit_s : FloatArray, shape (n,)
            Speed of the clients' links.
        table : mapping
            Of a group in a fleet file: columns by name, `link` and `agent`.
        is_ideal : bool
            Rounds are minibatches and transfers alone, waiting is in the lowest mode, and nothing
            heats up: the table is only checked.
        """
        known, count = {f.name for f in fields(cls) if "default" in f.metadata}, len(link_mbit_s)
        check_keys(table, known | _WORDS)
        agent = table.get("agent", True)
        if not isinstance(agent, bool):
            raise InvalidInput(f"agent is true or false, got {agent!r}")
        usual = usual_costs(board, agent)
        radio = _radio(table.get("link", "ethernet"), link_mbit_s)
        given = {key: value for key, value in table.items() if key not in _WORDS}
        numbers = cls.numbers({**usual, **given}, count)
        numbers |= {key: values for key, values in radio.items() if key not in given}
        if numbers["supply_efficiency"].max() > 1:
            raise InvalidInput("supply_efficiency is a share, above 0 and at most 1")
        if is_ideal:
            numbers = cls.numbers({"idle_w": _idle_w(board, board.space.minimum)}, count)
        return cls(np.broadcast_to(np.bool_(agent or is_ideal), count), **numbers)

    def radio_j(self, rows: IntArray, transfer_s: FloatArray) -> FloatArray:
        """Joules of the network interface in a round, one half of whose transfer is sending."""
        busy_w = (self.send_w[rows] + self.receive_w[rows]) / 2
        return np.asarray(busy_w * transfer_s + 2 * self.tail_j[rows])

    def thermal(self, row: int) -> Thermal:
        """The thermal model of one client."""
        names = ("ambient_c", "k_per_w", "tau_s", "throttle_c")
        return Thermal(*(float(getattr(self, name)[row]) for name in names))


def usual_costs(board: Board, agent: bool) -> dict[str, float]:
    """The costs of a board where a fleet file does not say them, but for its link's."""
    known = real_rounds()
    by_board = {
        name: values.get(board.name, values["others"])
        for name, values in known.items()
        if "others" in values
    }
    least_w, held_w = _idle_w(board, board.space.minimum), _idle_w(board, board.space.maximum)
    floating = by_board.pop("floating_share")
    return {
        **by_board,
        "fixed_s": known["fixed_s"]["with_agent" if agent else "without_agent"],
        "idle_w": held_w - floating * (held_w - least_w),
    }


def _idle_w(board: Board, mode: PowerMode) -> float:
    return float(idle_power_w(board.hardware, *mode.values))


@cache
def real_rounds() -> Mapping[str, Any]:
    """The file that says what real rounds take, and where each number is from."""
    return read_toml(resources.files("wattfed.client") / "fleet" / "real_rounds.toml")


def _radio(link: object, link_mbit_s: FloatArray) -> dict[str, FloatArray]:
    """Power of a kind of link, sending and receiving at some speeds, and its joules afterwards."""
    kinds = real_rounds()["link"]
    if link not in kinds:
        raise UnknownName("link", str(link), kinds)
    kind = kinds[link]
    count, alike = len(link_mbit_s), link_mbit_s.strides[0] == 0  # then in memory once
    rate = np.minimum(link_mbit_s[:1] if alike else link_mbit_s, kind["most_mbit_s"])
    found = {key: kind[key] + kind[f"{key}_per_mbit_s"] * rate for key in ("send_w", "receive_w")}
    found["tail_j"] = np.full(1, kind["tail_j"])
    return {key: np.broadcast_to(values, count) for key, values in found.items()}


IDEAL = RoundCosts(
    np.ones(1, dtype=bool), **{**RoundCosts.numbers({}, 1), "idle_w": np.full(1, np.nan)}
)
"""Of a client of no fleet, which waits in the lowest mode of whatever device it has."""
