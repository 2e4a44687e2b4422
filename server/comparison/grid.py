"""What a comparison runs: policies, power policies, clients a round and seeds, all combined."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from powerctl.errors import InvalidInput, UnknownName
from powerctl.fields import build, checked
from powerctl.plugins import split_names
from wattfed.server.run.contender import Contender
from wattfed.strategies.run_config import RunConfig, flag
from wattfed.strategies.target import RunGoal

# what a comparison replaces in the configuration that its runs have in common
REPLACED = (
    *("strategy", "power", "per-round", "seed", "target-accuracy", "target", "name", "out-dir"),
    *("resume", "checkpoint-every", "unsupervised"),  # a comparison goes on with whole runs
)
WHERE = ("name", "out-dir", "min-nodes", "workers", "resume", "log")
"""Keys of a run that are of no concern to a repetition."""
STRATEGIES = "random,fedcs,oort,tifl,power-of-choice,eafl,pace"
COMMON = RunConfig(fleet="hundred-jetsons", rounds=120)
"""The usual configuration of what is compared."""


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

    @classmethod
    def of(
        cls,
        *,
        strategies: str | Sequence[str] = STRATEGIES,
        power: str | Sequence[str] = "maxn,slack",
        per_round: str | int | Sequence[int] = "10",
        seeds: int = 3,
        seed: int = 0,
        target_accuracy: str | float | Sequence[float] = "0.9",
        target: str = "",
        all_rounds: bool = False,
        **options: Any,
    ) -> Comparison:
        """The comparison of a command's options, or of the same from Python.

        Parameters
        ----------
        strategies, power, per_round, target_accuracy : str or sequence
            What is combined: a sequence, or a text with commas.
        target : str
            ``METRIC=VALUE,...`` in place of target accuracies.
        seeds, seed : int
            How many seeds, and the first.
        all_rounds : bool
            Whether runs go on after the last target.
        **options
            Fields of `RunConfig` that all runs have in common, in place of those of `COMMON`.
        """
        if unknown := set(options) - set(cls.options()):
            raise UnknownName("option of a comparison", min(unknown), cls.options())
        accuracies = split_numbers(target_accuracy, float, "--target-accuracy")
        goal = RunGoal.parse(target) if target else RunGoal("", accuracies)
        return cls(
            base=COMMON.changed(**options),
            strategies=split_names(strategies),
            powers=split_names(power),
            per_round=split_numbers(per_round, int, "--per-round"),
            seeds=tuple(range(seed, seed + seeds)),
            targets=goal.levels,
            metric=goal.metric,
            all_rounds=all_rounds,
        )

    @classmethod
    def usual(cls) -> dict[str, Any]:
        """The options of a comparison itself, with what they are by default."""
        return dict(cls.of.__kwdefaults__ or {})

    @classmethod
    def options(cls) -> list[str]:
        """The names of all that `of` takes."""
        common = (f.name for f in fields(RunConfig) if flag(f.name) not in REPLACED)
        return [*cls.usual(), *common]

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
            unsupervised=True,  # policies are compared, each as it is
            target_accuracy=0.0 if self.all_rounds or self.metric else max(self.targets),
            target=str(RunGoal(self.metric, () if self.all_rounds else self.targets))
            if self.metric
            else "",
        )
        contender = Contender.of(config)
        words = f"{strategy} {contender.power} {per_round} seed{seed}"
        return replace(config, name=re.sub(r"[^\w.=]+", "-", words))

    def commands(self, out: str) -> list[str]:
        """What to type to repeat it: a command for each range of seeds, usually one."""
        usual, base = RunConfig().to_flower(), replace(self.base, settings=()).to_flower()
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
        words = _words((*options.items(), *_settings(self.base), ("out", out)))
        return [
            " \\\n  ".join(("wattfed compare", *words, f"--seed {seeds[0]} --seeds {len(seeds)}"))
            for seeds in _ranges(self.seeds)
        ]

    def _goal(self) -> dict[str, str]:
        """The option that says what runs are judged by."""
        if self.metric:
            return {"target": str(RunGoal(self.metric, self.targets))}
        return {"target-accuracy": ",".join(f"{target:g}" for target in self.targets)}

    def record(self) -> dict[str, Any]:
        """The comparison as JSON holds it."""
        return {**asdict(self), "base": self.base.to_flower()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Comparison:
        """The comparison that `record` told; raises `InvalidInput` if it is none."""
        base = checked("base", record.get("base"), Mapping[str, Any])
        return build(cls, {**record, "base": RunConfig.from_flower(base)}, "asked")


def run_command(config: RunConfig, against: Sequence[RunConfig], *, is_simulated: bool) -> str:
    """What to type to repeat a run, and its baselines: with all that is not as usual."""
    usual = RunConfig().to_flower()
    given = replace(config, settings=()).to_flower()
    options = {
        key: value
        for key, value in given.items()
        if key in ("strategy", "seed") or (value != usual[key] and key not in WHERE)
    }
    if not is_simulated:
        pairs = {**options, **dict(config.settings)}.items()
        keys = " ".join(f"{key}={json.dumps(value)}" for key, value in pairs)
        return f"flwr run . --stream --run-config {shlex.quote(keys)}"
    baselines = [("against", f"{other.strategy}:{other.power}") for other in against]
    words = _words((*options.items(), *_settings(config), *baselines))
    return " \\\n  ".join(("wattfed simulate", *words))


def _settings(config: RunConfig) -> list[tuple[str, str]]:
    return [("set", f"{key}={json.dumps(value)}") for key, value in config.settings]


def _words(options: Iterable[tuple[str, Any]]) -> list[str]:
    return [
        f"--{key}" if value is None or value is True else f"--{key} {shlex.quote(str(value))}"
        for key, value in options
    ]


def _ranges(numbers: Sequence[int]) -> list[list[int]]:
    """The numbers in runs without gaps."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ranges


def split_numbers(
    given: str | float | Sequence[float], kind: type[int] | type[float], what: str
) -> tuple[Any, ...]:
    """Numbers, ascending, each once: one, a sequence of them, or a text with commas between."""
    parts = given.split(",") if isinstance(given, str) else given
    if isinstance(parts, (int, float)):
        parts = [parts]
    try:
        return tuple(sorted({kind(part) for part in parts if str(part).strip()}))
    except (TypeError, ValueError):
        raise InvalidInput(f"{what}: cannot read {given!r}; write numbers like 3,5,10") from None
