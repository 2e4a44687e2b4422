"""Selection policies by name: ours, and those of others."""

from __future__ import annotations

from functools import partial

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
    fixed=("power", "accounting"),  # of the run, which results are told apart by
)


def make_policy(config: RunConfig) -> SelectionPolicy:
    """A fresh policy from ``NAME`` or ``NAME(PARAMETER=VALUE, ...)``, e.g. ``oort(clip=0.9)``.

    Where it has them, its parameters `power`, `deadline_s`, `rounds` and `accounting` are those of
    the run.

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
        accounting=config.accounting,
    )


def split_power(text: str) -> tuple[str, str]:
    """Strategy and power policy of ``STRATEGY[:POWER]``, where a strategy may be ``mod:Name``."""
    strategy, _, power = text.rpartition(":")
    is_ours = parsed("strategy", strategy)[0] in POLICIES.names()  # then what follows is the power
    if is_ours or (strategy and power in POWER_POLICIES):
        return strategy, power
    return text, ""
