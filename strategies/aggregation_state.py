"""What aggregations keep from round to round: Flower's have no word for it themselves."""

from __future__ import annotations

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from wattfed.strategies.robust import MultiKrum, TrimmedMean
from wattfed.strategies.safeguard import Safeguard
from wattfed.strategies.state import (
    State,
    Stateful,
    restore,
    restore_attributes,
    state_of,
    state_of_attributes,
)

# the same attributes in Flower 1.30 and 1.41
_KEPT: dict[type[FedAvg], tuple[str, ...]] = {
    **dict.fromkeys((FedAvg, flower.FedProx, flower.FedMedian, TrimmedMean), ()),
    **dict.fromkeys((flower.Krum, MultiKrum, flower.Bulyan), ()),
    **dict.fromkeys(
        (flower.FedAdam, flower.FedAdagrad, flower.FedYogi), ("current_arrays", "m_t", "v_t")
    ),
    flower.FedAvgM: ("current_arrays", "momentum_vector"),
    Safeguard: ("_base",),
}
_WITHIN = "aggregation"


def state_of_aggregation(aggregation: FedAvg) -> State:
    """What an aggregation says that it keeps, or what is known of Flower's; else nothing."""
    names = _KEPT.get(type(aggregation))
    if isinstance(aggregation, Stateful) or names is None:
        return state_of(aggregation)
    state = state_of_attributes(aggregation, names)
    if isinstance(aggregation, Safeguard):
        state[_WITHIN] = state_of_aggregation(aggregation.aggregation)
    return state


def restore_aggregation(aggregation: FedAvg, state: State) -> None:
    """Let an aggregation go on; raises `InvalidInput` if it cannot, or is of another kind."""
    names = _KEPT.get(type(aggregation))
    if isinstance(aggregation, Stateful) or names is None:
        restore(aggregation, state)
        return
    if isinstance(aggregation, Safeguard):
        restore_aggregation(aggregation.aggregation, state.get(_WITHIN, {}))
        state = {name: value for name, value in state.items() if name != _WITHIN}
    restore_attributes(aggregation, names, state)
