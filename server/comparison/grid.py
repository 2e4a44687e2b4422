"""What a comparison runs: policies, power policies, clients a round and seeds, all combined."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from powerctl.errors import InvalidInput
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import Goal

JOINT = "joint"  # the power policy of strategies that choose modes themselves
# what a comparison replaces in the configuration that its runs have in common
REPLACED = (
    *("strategy", "power", "per-round", "seed", "target-accuracy", "target", "name", "out-dir"),
    *("resume", "checkpoint-every"),  # a comparison goes on with whole runs
)
_NAMES = re.compile(r"[^,()]+(?:\([^()]*\))?")


class Contender(NamedTuple):
    """What is compared: a selection policy, a power policy, and the clients wanted in a round."""

    strategy: str
    power: str
    per_round: int

    @classmethod
    def of(cls, config: RunConfig) -> Contender:
        """The contender of a run; strategies that choose modes themselves have the power joint."""
        from wattfed.strategies.catalogue import make_policy  # loads flwr, which --help must not

        own = not hasattr(make_policy(config), "power")
        return cls(config.strategy, JOINT if own else config.power, config.per_round)

    @property
    def policy(self) -> str:
        """How tables call it, whatever its number of clients."""
        return self.strategy if self.power == JOINT else f"{self.strategy} at {self.power}"


@dataclass(frozen=True)
class Comparison:
    """The runs of a comparison.

    Attributes
    ----------
    base : RunConfig
        What all runs have in common; its strategy, power, number of clients and seed are replaced.
    strategies, powers, per_round, seeds : tuple
        What is combined. A strategy that chooses modes itself runs once for all of `powers`.
    targets : tuple of float
        Levels of the target metric up to which time and energy are counted.
    all_rounds : bool
        Whether runs go on after the last target, for what they reach in the end.
    metric : str
        The target metric, by which all runs are judged; empty is accuracy.
    """

    base: RunConfig
    strategies: tuple[str, ...]
    powers: tuple[str, ...]
    per_round: tuple[int, ...]
    seeds: tuple[int, ...]
    targets: tuple[float, ...] = (0.9,)
    all_rounds: bool = False
    metric: str = ""

    def __post_init__(self) -> None:
        for name in ("strategies", "powers", "per_round", "seeds", "targets"):
            if not getattr(self, name):
                raise InvalidInput(f"nothing to compare: no {name.replace('_', ' ')} given")
        if not self.metric and not all(0 < target <= 1 for target in self.targets):
            raise InvalidInput(f"target accuracies are above 0 and up to 1, got {self.targets}")

    def runs(self) -> list[RunConfig]:
        """The configuration of every run, once each; all of a seed before those of the next."""
        runs: dict[tuple[Contender, int], RunConfig] = {}
        for seed in self.seeds:
            for strategy in self.strategies:
                for power in self.powers:
                    for per_round in self.per_round:
                        config = self._run(strategy, power, per_round, seed)
                        runs.setdefault((Contender.of(config), seed), config)
        return list(runs.values())

    def _run(self, strategy: str, power: str, per_round: int, seed: int) -> RunConfig:
        config = replace(
            self.base,
            strategy=strategy,
            power=power,
            per_round=per_round,
            seed=seed,
            target_accuracy=0.0 if self.all_rounds or self.metric else max(self.targets),
            target=str(Goal(self.metric, () if self.all_rounds else self.targets))
            if self.metric
            else "",
        )
        contender = Contender.of(config)
        words = f"{strategy} {contender.power} {per_round} seed{seed}"
        return replace(config, name=re.sub(r"[^\w.=]+", "-", words))

    def commands(self, out: str) -> list[str]:
        """What to type to repeat it: a command for each range of seeds, usually one."""
        usual, base = RunConfig().to_flower(), self.base.to_flower()
        options: dict[str, Any] = {
            "strategies": ",".join(self.strategies),
            "power": ",".join(self.powers),
            "per-round": ",".join(map(str, self.per_round)),
            **self._goal(),
            **{
                key: base[key]
                for key in base
                if key in ("fleet", "rounds") or (key not in REPLACED and base[key] != usual[key])
            },
        }
        if self.all_rounds:
            options["all-rounds"] = None
        words = [
            f"--{key}" if value is None else f"--{key} {shlex.quote(str(value))}"
            for key, value in (*options.items(), ("out", out))
        ]
        return [
            " \\\n  ".join(("wattfed compare", *words, f"--seed {seeds[0]} --seeds {len(seeds)}"))
            for seeds in _ranges(self.seeds)
        ]

    def _goal(self) -> dict[str, str]:
        """The option that says what runs are judged by."""
        if self.metric:
            return {"target": str(Goal(self.metric, self.targets))}
        return {"target-accuracy": ",".join(f"{target:g}" for target in self.targets)}

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "base": self.base.to_flower()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Comparison:
        """The comparison that `record` told; raises `KeyError` or `TypeError` if it is none."""
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
        return cls(**{**values, "base": RunConfig.from_flower(values["base"])})


def _ranges(numbers: Sequence[int]) -> list[list[int]]:
    """The numbers in runs without gaps."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ranges


def split_names(text: str) -> tuple[str, ...]:
    """Strategies with commas between, each ``NAME`` or ``NAME(PARAMETER=VALUE, ...)``."""
    names = tuple(name.strip() for name in _NAMES.findall(text))
    return tuple(dict.fromkeys(name for name in names if name))


def split_numbers(text: str, kind: type[int] | type[float], what: str) -> tuple[Any, ...]:
    """Numbers with commas between, ascending, each once."""
    try:
        return tuple(sorted({kind(part) for part in text.split(",") if part.strip()}))
    except ValueError:
        raise InvalidInput(f"{what}: cannot read {text!r}; write numbers like 3,5,10") from None
