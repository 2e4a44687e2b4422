"""By what a run is told from others: its selection policy, power policy and clients a round."""

from __future__ import annotations

from typing import NamedTuple

from powerctl.plugins import names_code
from wattfed.strategies.run_config import RunConfig

JOINT = "joint"  # the power policy of strategies that choose modes themselves


class PolicyPair(NamedTuple):
    """A selection policy with a power policy, whatever the number of clients a round."""

    strategy: str
    power: str

    def __str__(self) -> str:
        return self.strategy if self.power == JOINT else f"{self.strategy} at {self.power}"


class Contender(NamedTuple):
    """What is compared: a selection policy, a power policy, and the clients wanted in a round."""

    strategy: str
    power: str
    per_round: int

    @classmethod
    def of(cls, config: RunConfig) -> Contender:
        """The contender of a run; strategies that choose modes themselves have the power joint.

        One that is named by its code counts as one that only selects: results are read too, by
        those who would not run what they name.
        """
        from wattfed.strategies.policies.catalogue import POLICIES  # not for --help

        own = not names_code(config.strategy) and not POLICIES.takes(config.strategy, "power")
        return cls(config.strategy, JOINT if own else config.power, config.per_round)

    @property
    def pair(self) -> PolicyPair:
        """Its policies, without its number of clients."""
        return PolicyPair(self.strategy, self.power)

    @property
    def policy(self) -> str:
        """How tables call it, whatever its number of clients."""
        return str(self.pair)
