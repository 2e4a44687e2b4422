"""Selection policies and aggregation strategies: ours by name, and those of others."""

from __future__ import annotations

from functools import partial

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from powerctl.errors import InvalidInput
from powerctl.plugins import Kind, parsed
from wattfed.strategies.policies.all_clients import AllClients
from wattfed.strategies.policies.eafl import EAFL
from wattfed.strategies.policies.energy_budget import EnergyBudget
from wattfed.strategies.policies.fedcs import FedCS
from wattfed.strategies.policies.haccs import HACCS
from wattfed.strategies.policies.oort import Oort, as_in_fedscale
from wattfed.strategies.policies.pace import Pace
from wattfed.strategies.policies.power_of_choice import PowerOfChoice
from wattfed.strategies.policies.random_selection import RandomSelection
from wattfed.strategies.policies.refl import REFL
from wattfed.strategies.policies.round_robin_tiers import RoundRobinTiers
from wattfed.strategies.policies.tifl import TiFL
from wattfed.strategies.policy import SelectionPolicy
from wattfed.strategies.protocol import POWER_POLICIES
from wattfed.strategies.round.aggregation import Aggregation
from wattfed.strategies.round.robust import Bulyan, Krum, MultiKrum, TrimmedMean, least_updates
from wattfed.strategies.run_config import RunConfig

POLICIES = Kind[SelectionPolicy](
    "strategy",
    "wattfed.policies",
    {
        "random": RandomSelection,
        "all": AllClients,
        "round-robin-tiers": RoundRobinTiers,
        "fedcs": FedCS,
        "fedcs-serial": partial(FedCS, parallel_upload=False),
        "oort": Oort,
        "oort-fedscale": as_in_fedscale,
        "tifl": TiFL,
        "power-of-choice": PowerOfChoice,
        "eafl": EAFL,
        "refl": REFL,
        "haccs": HACCS,
        "energy-budget": EnergyBudget,
        "pace": Pace,
    },
    SelectionPolicy,
    fixed=("power",),  # of the run, which results are told apart by
)

_ALL_SELECTED = {
    "fraction_train": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
}
_OF_THE_RUN = ("proximal_mu", "hostile")
_MOMENTUM = 0.9  # of fedavgm (Hsu et al., 2019); Flower's own default is none
AGGREGATIONS = Kind[FedAvg](
    "aggregation",
    "wattfed.aggregations",
    {
        "fedavg": flower.FedAvg,
        "fedavgm": partial(flower.FedAvgM, server_momentum=_MOMENTUM),
        "fedadam": flower.FedAdam,
        "fedadagrad": flower.FedAdagrad,
        "fedyogi": flower.FedYogi,
        "fedmedian": flower.FedMedian,
        "fedtrimmedavg": TrimmedMean,
        "fedprox": flower.FedProx,
        "krum": Krum,
        "multikrum": MultiKrum,
        "bulyan": Bulyan,
    },
    flower.Strategy,
    fixed=(*_ALL_SELECTED, *_OF_THE_RUN),
)


def policy_names() -> list[str]:
    """Names of the selection policies."""
    return POLICIES.names()


def aggregation_names() -> list[str]:
    """Names of the aggregation strategies."""
    return AGGREGATIONS.names()


def make_policy(config: RunConfig) -> SelectionPolicy:
    """A fresh policy from ``NAME`` or ``NAME(PARAMETER=VALUE, ...)``, e.g. ``oort(clip=0.9)``.

    Where it has them, its parameters `power`, `deadline_s` and `rounds` are those of the run.

    Raises
    ------
    UnknownName
        Listing the known policies, or the parameters of this one.
    InvalidInput
        If the text or a value cannot be read, or another's policy cannot be loaded.
    """
    return POLICIES.make(
        config.strategy,
        power=config.power,
        deadline_s=config.deadline_s,
        rounds=config.rounds,
    )


def split_power(text: str) -> tuple[str, str]:
    """Strategy and power policy of ``STRATEGY[:POWER]``, where a strategy may be ``mod:Name``."""
    strategy, _, power = text.rpartition(":")
    is_ours = parsed("strategy", strategy)[0] in policy_names()  # then what follows is the power
    if is_ours or (strategy and power in POWER_POLICIES):
        return strategy, power
    return text, ""


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
    name, hostile = parsed("aggregation", config.aggregation)[0], config.hostile
    least = least_updates(name, hostile)
    if config.per_round < least:
        raise InvalidInput(
            f"{name} withstands {hostile} hostile clients among at least {least}, per-round is "
            f"{config.per_round}; raise per-round or lower hostile"
        )
    strategy = AGGREGATIONS.make(
        config.aggregation,
        proximal_mu=config.proximal_mu,
        hostile=hostile,
        **_ALL_SELECTED,
    )
    return Aggregation(strategy, parameters, max(config.min_reports, least), config.clip_norm)
