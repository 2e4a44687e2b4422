"""Selection policies and aggregation strategies by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, cast

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from powerctl.errors import InvalidInput, UnknownName
from wattfed.strategies.aggregation import Aggregation
from wattfed.strategies.all_clients import AllClients
from wattfed.strategies.eafl import EAFL
from wattfed.strategies.energy_budget import EnergyBudget
from wattfed.strategies.fedcs import FedCS
from wattfed.strategies.haccs import HACCS
from wattfed.strategies.named import parsed, values_of
from wattfed.strategies.oort import Oort, as_in_fedscale
from wattfed.strategies.pace import Pace
from wattfed.strategies.policy import SelectionPolicy
from wattfed.strategies.power_of_choice import PowerOfChoice
from wattfed.strategies.random_selection import RandomSelection
from wattfed.strategies.refl import REFL
from wattfed.strategies.robust import Bulyan, Krum, MultiKrum, TrimmedMean, least_updates
from wattfed.strategies.round_robin_tiers import RoundRobinTiers
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.tifl import TiFL

_POLICIES: dict[str, Callable[[RunConfig], SelectionPolicy]] = {
    "random": lambda config: RandomSelection(config.power),
    "all": lambda config: AllClients(config.power),
    "round-robin-tiers": lambda config: RoundRobinTiers(config.power),
    "fedcs": lambda config: FedCS(config.deadline_s, config.power),
    "fedcs-serial": lambda config: FedCS(config.deadline_s, config.power, parallel_upload=False),
    "oort": lambda config: Oort(config.power),
    "oort-fedscale": lambda config: as_in_fedscale(config.power),
    "tifl": lambda config: TiFL(config.power),
    "power-of-choice": lambda config: PowerOfChoice(config.power),
    "eafl": lambda config: EAFL(config.power),
    "refl": lambda config: REFL(config.power),
    "haccs": lambda config: HACCS(config.power),
    "energy-budget": lambda config: EnergyBudget(config.power, rounds=config.rounds),
    "pace": lambda config: Pace(),
}

_AGGREGATIONS: dict[str, type[FedAvg]] = {
    "fedavg": flower.FedAvg,
    "fedavgm": flower.FedAvgM,
    "fedadam": flower.FedAdam,
    "fedadagrad": flower.FedAdagrad,
    "fedyogi": flower.FedYogi,
    "fedmedian": flower.FedMedian,
    "fedtrimmedavg": TrimmedMean,
    "fedprox": flower.FedProx,
    "krum": Krum,
    "multikrum": MultiKrum,
    "bulyan": Bulyan,
}

_MOMENTUM = 0.9  # of fedavgm (Hsu et al., 2019); Flower's own default is none


def policy_names() -> list[str]:
    """Names of the selection policies."""
    return sorted(_POLICIES)


def aggregation_names() -> list[str]:
    """Names of the aggregation strategies."""
    return sorted(_AGGREGATIONS)


def make_policy(config: RunConfig) -> SelectionPolicy:
    """A fresh policy from ``NAME`` or ``NAME(PARAMETER=VALUE, ...)``, e.g. ``oort(clip=0.9)``.

    Raises
    ------
    UnknownName
        Listing the known policies, or the parameters of this one.
    InvalidInput
        If the text or a value cannot be read.
    """
    name, given = parsed("strategy", config.strategy)
    if name not in _POLICIES:
        raise UnknownName("strategy", name, _POLICIES)
    policy = _POLICIES[name](config)
    values = values_of(name, given, policy_parameters(policy))
    return cast(SelectionPolicy, replace(cast(Any, policy), **values))


def policy_parameters(policy: SelectionPolicy) -> dict[str, Any]:
    """The parameters of a policy that text can set, and their values."""
    names = [f.name for f in fields(cast(Any, policy)) if not f.name.startswith("_")]
    return {name: getattr(policy, name) for name in names if name != "power"}


def make_aggregation(config: RunConfig, parameters: frozenset[str] | None = None) -> Aggregation:
    """One of Flower's strategies, for whole models, behind the run's quorum and clipping.

    Parameters
    ----------
    config : RunConfig
        The run.
    parameters : frozenset of str, optional
        Names of the model's parameters; by default all floating arrays are.

    Raises
    ------
    UnknownName
        Listing the known aggregations.
    InvalidInput
        If a round has too few clients for the aggregation to withstand so many hostile ones.
    """
    name, hostile = config.aggregation, config.hostile
    if name not in _AGGREGATIONS:
        raise UnknownName("aggregation", name, _AGGREGATIONS)
    least = least_updates(name, hostile)
    if config.per_round < least:
        raise InvalidInput(
            f"{name} withstands {hostile} hostile clients among at least {least}, per-round is "
            f"{config.per_round}; raise per-round or lower hostile"
        )
    own: dict[str, dict[str, Any]] = {
        "fedavgm": {"server_momentum": _MOMENTUM},
        "fedprox": {"proximal_mu": config.proximal_mu},
        **{key: {"hostile": hostile} for key in ("fedtrimmedavg", "krum", "multikrum", "bulyan")},
    }
    strategy = _AGGREGATIONS[name](
        fraction_train=1.0,
        min_train_nodes=1,
        min_evaluate_nodes=1,
        min_available_nodes=1,
        **own.get(name, {}),
    )
    return Aggregation(strategy, parameters, max(config.min_reports, least), config.clip_norm)
