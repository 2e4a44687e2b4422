"""Selection policies and aggregation strategies by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from powerctl.errors import UnknownName
from strategies.all_clients import AllClients
from strategies.fedcs import FedCS
from strategies.pace import Pace
from strategies.policy import SelectionPolicy
from strategies.random_selection import RandomSelection
from strategies.run_config import RunConfig

_POLICIES: dict[str, Callable[[RunConfig], SelectionPolicy]] = {
    "random": lambda config: RandomSelection(config.power),
    "all": lambda config: AllClients(config.power),
    "fedcs": lambda config: FedCS(config.deadline_s, config.power),
    "pace": lambda config: Pace(),
}

_AGGREGATIONS: dict[str, type[FedAvg]] = {
    "fedavg": flower.FedAvg,
    "fedavgm": flower.FedAvgM,
    "fedadam": flower.FedAdam,
    "fedadagrad": flower.FedAdagrad,
    "fedyogi": flower.FedYogi,
    "fedmedian": flower.FedMedian,
    "fedtrimmedavg": flower.FedTrimmedAvg,
    "fedprox": flower.FedProx,
}


def policy_names() -> list[str]:
    """Names of the selection policies."""
    return sorted(_POLICIES)


def aggregation_names() -> list[str]:
    """Names of the aggregation strategies."""
    return sorted(_AGGREGATIONS)


def make_policy(config: RunConfig) -> SelectionPolicy:
    """A fresh policy; raises `UnknownName` listing the known ones."""
    if config.strategy not in _POLICIES:
        raise UnknownName("strategy", config.strategy, _POLICIES)
    return _POLICIES[config.strategy](config)


def make_aggregation(config: RunConfig) -> FedAvg:
    """One of Flower's strategies, which aggregates whatever arrives."""
    name = config.aggregation
    if name not in _AGGREGATIONS:
        raise UnknownName("aggregation", name, _AGGREGATIONS)
    own: dict[str, Any] = {"proximal_mu": config.proximal_mu} if name == "fedprox" else {}
    return _AGGREGATIONS[name](
        fraction_train=1.0, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1, **own
    )
