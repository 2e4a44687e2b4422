"""Selection policies and aggregation strategies by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, cast

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from powerctl.errors import InvalidInput, UnknownName
from strategies.all_clients import AllClients
from strategies.eafl import EAFL
from strategies.energy_budget import EnergyBudget
from strategies.fedcs import FedCS
from strategies.haccs import HACCS
from strategies.oort import Oort, as_in_fedscale
from strategies.pace import Pace
from strategies.policy import SelectionPolicy
from strategies.power_of_choice import PowerOfChoice
from strategies.random_selection import RandomSelection
from strategies.refl import REFL
from strategies.round_robin_tiers import RoundRobinTiers
from strategies.run_config import RunConfig
from strategies.tifl import TiFL

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
    """A fresh policy from ``NAME`` or ``NAME(PARAMETER=VALUE, ...)``, e.g. ``oort(clip=0.9)``.

    Raises
    ------
    UnknownName
        Listing the known policies, or the parameters of this one.
    InvalidInput
        If the text or a value cannot be read.
    """
    name, given = _parsed(config.strategy)
    if name not in _POLICIES:
        raise UnknownName("strategy", name, _POLICIES)
    policy = _POLICIES[name](config)
    known = policy_parameters(policy)
    values = {}
    for key, text in given.items():
        if key not in known:
            raise UnknownName(f"parameter of {name}", key, known)
        values[key] = _value(f"{name}({key}=...)", text, type(known[key]))
    return cast(SelectionPolicy, replace(cast(Any, policy), **values))


def policy_parameters(policy: SelectionPolicy) -> dict[str, Any]:
    """The parameters of a policy that text can set, and their values."""
    names = [f.name for f in fields(cast(Any, policy)) if not f.name.startswith("_")]
    return {name: getattr(policy, name) for name in names if name != "power"}


def _parsed(text: str) -> tuple[str, dict[str, str]]:
    """Name and parameters of ``NAME(KEY=VALUE, ...)``."""
    parts = re.fullmatch(r"([^()]*)(?:\((.*)\))?", text.strip())
    pairs = [p.split("=") for p in (parts[2] or "").split(",") if p.strip()] if parts else [[]]
    if parts is None or any(len(pair) != 2 for pair in pairs):
        raise InvalidInput(f"cannot read the strategy {text!r}; write NAME or NAME(KEY=VALUE, ...)")
    return parts[1].strip(), {key.strip(): value.strip() for key, value in pairs}


def _value(what: str, text: str, kind: type) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError):
        raise InvalidInput(f"{what}: {text!r} is no {kind.__name__}") from None


def make_aggregation(config: RunConfig) -> FedAvg:
    """One of Flower's strategies, which aggregates whatever arrives."""
    name = config.aggregation
    if name not in _AGGREGATIONS:
        raise UnknownName("aggregation", name, _AGGREGATIONS)
    own: dict[str, Any] = {"proximal_mu": config.proximal_mu} if name == "fedprox" else {}
    return _AGGREGATIONS[name](
        fraction_train=1.0, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1, **own
    )
