"""How a whole model is aggregated: its parameters by one of Flower's strategies, its buffers too.

What stands between updates and a strategy is here as well: a quorum, a bound on their length, and
that an aggregate which is no model is not taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from logging import WARNING
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
)
from numpy.typing import NDArray

from powerctl.errors import InvalidInput
from powerctl.plugins import Kind, parsed
from wattfed.strategies.round.numpy_reply import Numbers, NumpyReply
from wattfed.strategies.round.robust import Bulyan, Krum, MultiKrum, TrimmedMean, least_updates
from wattfed.strategies.round.sums import UpdateSum, joined
from wattfed.strategies.round.updates import ClientUpdate, GlobalModel, Reply
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.state import AttributeMemory, Stateful, lacks_state
from wattfed.strategies.summaries import UpdateSummary

_OF_THE_MEAN = (FedAvg, FedAvgM, FedAdam, FedAdagrad, FedYogi, FedProx)  # all that they look at
_NUMBER_BY_NUMBER = (FedMedian, FedTrimmedAvg)  # what they give lies among what they are given
_KEPT = ("m_t", "v_t", "momentum_vector")  # by Flower's server optimizers, from round to round
_Aggregate = tuple[Numbers | None, MetricRecord | None]


class Aggregation:
    """One of Flower's strategies, for models with buffers, behind a quorum and a bound on lengths.

    The strategy sees the parameters alone, and always in the model's order: a server optimizer
    would extrapolate running variances below zero, and no norm or distance should depend on
    counters, or on the order in which a client sends its arrays. Of the buffers

    - floating ones get the median or trimmed mean where the strategy is one of these, else their
      mean, weighted by examples, over the updates that the strategy selects; values beyond the
      `hostile` lowest or highest of all updates are first brought to the next,
    - integer ones that no update made smaller, such as counters, get the largest number (but for
      the `hostile` largest), so that those that nobody changed stay as they are,
    - other integer and Boolean ones get the median of each number, the lower of two; for Booleans
      that is what most say.

    Parameters
    ----------
    strategy : FedAvg
        The strategy.
    parameters : frozenset of str, optional
        Names of the model's parameters, frozen ones included; by default all floating arrays.
    min_reports : int
        With fewer updates in a round the model stays as it is.
    clip_norm : float
        Updates that are longer than so many medians of the round's lengths (L2 norms of the change
        of the parameters) are shortened to that; 0 leaves all. Clipping at the median bounds what
        any minority can do by scaling its updates up, and needs no length chosen before (adaptive
        clipping: Andrew et al., NeurIPS 2021).

    Attributes
    ----------
    base : GlobalModel
        The model of the present round, from which its updates start.
    takes_sums : bool
        Whether the mean of a round's updates is all that it needs of them.
    memory : Stateful
        What the strategy keeps between rounds: the momentum or moments of a server optimizer.
    lacks_state : str
        Why it cannot go on from a checkpoint; empty if it can.
    """

    def __init__(
        self,
        strategy: FedAvg,
        parameters: frozenset[str] | None = None,
        min_reports: int = 1,
        clip_norm: float = 0.0,
    ) -> None:
        self.strategy = strategy
        self.parameters = parameters
        self.min_reports = min_reports
        self.clip_norm = clip_norm
        self.takes_sums = type(strategy) in _OF_THE_MEAN and not clip_norm
        self._hostile = strategy.hostile if isinstance(strategy, Krum | TrimmedMean) else 0
        self.base = GlobalModel({}, parameters)
        is_ours = type(strategy).__module__.startswith(("flwr.", "wattfed."))
        self.lacks_state = "" if is_ours else lacks_state(strategy)
        kept = [name for name in _KEPT if name in vars(strategy)]
        self.memory: Stateful = (
            strategy
            if isinstance(strategy, Stateful)
            else AttributeMemory(strategy, kept, self.lacks_state)
        )

    def __repr__(self) -> str:
        bounds = f"min_reports={self.min_reports}, clip_norm={self.clip_norm:g}"
        return f"{type(self.strategy).__name__}, {bounds}"

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The strategy's messages, which carry the whole model."""
        self.base = GlobalModel.of(arrays, self.parameters)
        if isinstance(self.strategy, FedAvgM):
            # It would go on from its own last aggregate, also where that was not taken.
            self.strategy.current_arrays = None
        seen = ArrayRecord({name: arrays[name] for name in self.base.parameter_names})
        drafts = list(self.strategy.configure_train(server_round, seen, config, grid))
        for draft in drafts:
            draft.content[self.strategy.arrayrecord_key] = arrays
        return drafts

    def aggregate_train(
        self, server_round: int, replies: Iterable[Reply]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next model; nothing, and a line in the log, without a quorum or a finite one."""
        updates = [ClientUpdate(reply, self.base) for reply in replies]
        if self.takes_sums:
            return self.aggregate_sums(server_round, [self.sum_of(updates)])
        aggregate = partial(self._aggregate, server_round, updates)
        return self._taken(server_round, len(updates), aggregate)

    def sum_of(self, updates: Iterable[ClientUpdate]) -> UpdateSum:
        """The sum of some updates of the present model."""
        total = UpdateSum()
        with np.errstate(over="ignore"):
            for update in updates:
                total.add(self.base, update.numbers, update.metrics)
        return total

    def aggregate_sums(
        self, server_round: int, sums: Iterable[UpdateSum]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next model from the sums of some blocks, where it `takes_sums`."""
        whole = joined(sums)
        return self._taken(server_round, whole.n, partial(self._of_mean, server_round, whole))

    def _taken(
        self, server_round: int, n: int, aggregate: Callable[[], _Aggregate]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The aggregate of n updates, if these are a quorum and it is finite."""
        if n < self.min_reports:
            log(
                WARNING,
                "round %s: %s updates, min-reports is %s: the model stays as it was",
                *(server_round, n, self.min_reports),
            )
            return None, None
        before = self.memory.state()
        with np.errstate(over="ignore", invalid="ignore"):  # it is looked at when it is done
            arrays, metrics = aggregate()
        if arrays is None:
            return None, metrics
        typed = {
            name: np.asarray(arrays[name], was.dtype) for name, was in self.base.numbers.items()
        }
        unsound = _not_finite(typed) or _not_finite(self.memory.state())
        if unsound:
            log(
                WARNING,
                "round %s: the aggregate is not finite (%s): the model stays as it was",
                *(server_round, unsound),
            )
            if not self.lacks_state:
                self.memory.restore(before)
            return None, None
        return ArrayRecord({name: Array(array) for name, array in typed.items()}), metrics

    def _of_mean(self, server_round: int, whole: UpdateSum) -> _Aggregate:
        """All arrays of the next model from the sum of the updates."""
        base, mean = self.base, whole.mean(self.base)
        seen = [(_some(mean, base.parameter_names), whole.metrics())]
        arrays, metrics = _by(self.strategy, server_round, seen)
        if arrays is None:
            return None, metrics
        arrays |= _some(mean, base.floating_buffers)
        for name in base.other_buffers:
            arrays[name] = _settled(base.numbers[name], whole.values(name), self._hostile)
        return arrays, metrics

    def _aggregate(self, server_round: int, updates: Sequence[ClientUpdate]) -> _Aggregate:
        """All arrays of the next model from each of the updates."""
        base = self.base
        numbers = [update.numbers for update in updates]
        metrics = [update.metrics for update in updates]
        parameters = [_some(each, base.parameter_names) for each in numbers]
        if self.clip_norm:
            self._clip(parameters)
        used: Sequence[int] = range(len(updates))
        if isinstance(self.strategy, Krum):
            used = self.strategy.select(parameters)
        arrays, aggregated_metrics = _by(
            self.strategy, server_round, [(parameters[i], metrics[i]) for i in used]
        )
        if arrays is None:
            return None, aggregated_metrics
        if base.floating_buffers:
            buffers = [_some(each, base.floating_buffers) for each in numbers]
            self._bound(buffers)
            averaging = self.strategy if isinstance(self.strategy, _NUMBER_BY_NUMBER) else FedAvg()
            averages, _ = _by(averaging, server_round, [(buffers[i], metrics[i]) for i in used])
            arrays |= averages or {}
        for name in base.other_buffers:
            values = np.stack([each[name] for each in numbers])
            arrays[name] = _settled(base.numbers[name], values, self._hostile)
        return arrays, aggregated_metrics

    def clipped(self, summaries: Mapping[int, UpdateSummary]) -> dict[int, UpdateSummary]:
        """The summaries of a round's updates, by client, at the lengths that these are given."""
        longest = self._longest([one.norm for one in summaries.values()])
        return {
            client: one.scaled(longest / one.norm) if one.norm > longest else one
            for client, one in summaries.items()
        }

    def _longest(self, lengths: Sequence[float]) -> float:
        """The length that no update of a round may exceed, by the lengths of all."""
        if not (self.clip_norm and len(lengths)):
            return math.inf
        return self.clip_norm * float(np.median(lengths))

    def _clip(self, parameters: Sequence[Numbers]) -> None:
        """Shorten the updates that are too long, in place."""
        base = {name: self.base.widened(name) for name in self.base.parameter_names}
        changes = [
            {name: each[name].astype(np.float64) - began for name, began in base.items()}
            for each in parameters
        ]
        lengths = [np.sqrt(sum((c**2).sum() for c in each.values())) for each in changes]
        longest = self._longest(lengths)
        for each, change, length in zip(parameters, changes, lengths, strict=True):
            if length > longest:
                for name, began in base.items():
                    shortened = began + change[name] * (longest / length)
                    each[name] = np.asarray(shortened, began.dtype)

    def _bound(self, buffers: Sequence[Numbers]) -> None:
        """Bring what lies beyond all but the hostile lowest or highest to the next, in place."""
        beyond = min(self._hostile, (len(buffers) - 1) // 2)
        if beyond:
            for name in buffers[0]:
                ordered = np.sort(np.stack([each[name] for each in buffers]), axis=0)
                lowest, highest = ordered[beyond], ordered[-1 - beyond]
                for each in buffers:
                    each[name] = np.clip(each[name], lowest, highest)


def _by(
    strategy: FedAvg, server_round: int, updates: Sequence[tuple[Numbers, dict[str, float]]]
) -> _Aggregate:
    """Some arrays of some clients as a strategy aggregates them."""
    replies = [NumpyReply(arrays, metrics) for arrays, metrics in updates]
    record, metrics = strategy.aggregate_train(server_round, cast(list[Message], replies))
    if record is None:
        return None, metrics
    return {name: array.numpy() for name, array in record.items()}, metrics


def _settled(was: NDArray[Any], values: NDArray[Any], hostile: int) -> NDArray[Any]:
    """The next value of an integer or Boolean buffer, from those of n updates, shape (n, ...)."""
    ordered = np.sort(values, axis=0)
    middle = (len(values) - 1) // 2
    if was.dtype != np.bool_ and (values >= was).all():
        return np.asarray(ordered[-1 - min(hostile, middle)])
    return np.asarray(ordered[middle])


def _not_finite(arrays: Mapping[str, Any]) -> str:
    """The first name of what is not finite among arrays and what holds arrays; empty if all are."""
    for name, value in arrays.items():
        if isinstance(value, Mapping | list):
            held = value if isinstance(value, Mapping) else dict(enumerate(value))
            if _not_finite({f"{name}/{inner}": array for inner, array in held.items()}):
                return name
        elif value is not None and not np.isfinite(value).all():
            return name
    return ""


def _some(arrays: Numbers, names: Sequence[str]) -> Numbers:
    return {name: arrays[name] for name in names}


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
