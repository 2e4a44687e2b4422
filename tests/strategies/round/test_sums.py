"""Means of updates by sums of fixed blocks: who is in which, and what the sums keep exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.errors import InvalidInput
from tests.strategies.round.test_aggregation import AVERAGING, MODEL, PARAMETERS, begin, trained
from wattfed.strategies.round.numpy_reply import NumpyReply
from wattfed.strategies.round.sums import UpdateSum, blocks_of, joined
from wattfed.strategies.round.updates import GlobalModel

BASE = GlobalModel(MODEL, PARAMETERS)


def summed(updates, base=BASE):
    total = UpdateSum()
    for examples, update in enumerate(updates, start=1):
        total.add(base, update, {"num-examples": examples, "train-loss": 0.5 * examples})
    return total


@given(n=st.integers(0, 3000))
def test_blocks_hold_everybody_once_in_order_and_are_few(n):
    blocks = blocks_of(range(n))
    assert [client for block in blocks for client in block] == list(range(n))
    assert len({len(block) for block in blocks[:-1]}) <= 1
    assert n < 4 or len(blocks) <= 4 * n**0.5
    assert n < 4 or len(blocks) >= min(n, 4)  # to share out


def test_a_mean_is_weighted_by_examples_and_so_are_metrics():
    updates = [trained(client) for client in range(9)]
    whole = summed(updates)
    for name in ("weight", "scale", "mean", "variance"):
        expected = np.average([u[name] for u in updates], axis=0, weights=range(1, 10))
        np.testing.assert_allclose(whole.mean(BASE)[name], expected, rtol=1e-5)
    told = whole.metrics()
    assert told["num-examples"] == 45
    assert told["train-loss"] == pytest.approx(0.5 * sum(n * n for n in range(1, 10)) / 45)


def test_sums_of_blocks_differ_from_one_sum_by_rounding_alone():
    updates = [trained(client) for client in range(9)]
    parts = [UpdateSum() for _ in range(3)]
    for client, update in enumerate(updates):
        metrics = {"num-examples": client + 1, "train-loss": 0.5 * (client + 1)}
        parts[client // 3].add(BASE, update, metrics)
    whole, one = joined(parts), summed(updates)
    assert (whole.n, whole.weight, whole.metrics()) == (one.n, one.weight, one.metrics())
    for name, mean in one.mean(BASE).items():
        np.testing.assert_allclose(whole.mean(BASE)[name], mean, rtol=1e-5)
    np.testing.assert_array_equal(whole.values("batches"), [u["batches"] for u in updates])


@pytest.mark.parametrize("aggregation", AVERAGING)
def test_numbers_that_nobody_changed_stay_to_the_last_bit(aggregation):
    model = {**MODEL, "weight": np.float32([[0.1, 1 / 3], [1e-30, 7e8]])}
    updates = [{**trained(client, model), "weight": model["weight"]} for client in range(7)]
    begun = begin(model, aggregation=aggregation)
    arrays, _ = begun.aggregate_sums(1, [summed(updates, GlobalModel(model, PARAMETERS))])
    np.testing.assert_array_equal(arrays["weight"].numpy(), model["weight"])


def test_the_mean_of_small_variances_is_not_lost_in_those_they_began_with():
    updates = [{**trained(c), "variance": np.float32([1e-12, 3e-12])} for c in range(5)]
    np.testing.assert_allclose(summed(updates).mean(BASE)["variance"], [1e-12, 3e-12], rtol=1e-6)


@pytest.mark.parametrize("aggregation", AVERAGING)
def test_an_aggregation_makes_the_same_of_updates_and_of_their_sum(aggregation):
    updates = [trained(client) for client in range(5)]
    by_sum, _ = begin(aggregation=aggregation).aggregate_sums(1, [summed(updates)])
    weights = [{"num-examples": n, "train-loss": 0.5 * n} for n in range(1, 6)]
    replies = [NumpyReply(u, m) for u, m in zip(updates, weights, strict=True)]
    one_by_one, _ = begin(aggregation=aggregation).aggregate_train(1, replies)
    for name in MODEL:
        np.testing.assert_array_equal(by_sum[name].numpy(), one_by_one[name].numpy())


def test_the_arrays_of_an_update_may_change_when_it_has_been_added():
    update = {name: np.array(array) for name, array in trained(3).items()}
    total = summed([update])
    before = {name: mean.copy() for name, mean in total.mean(BASE).items()}
    for array in update.values():
        array[...] = 0
    for name, mean in total.mean(BASE).items():
        np.testing.assert_array_equal(mean, before[name])
    assert total.values("batches") == trained(3)["batches"]


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e19, "beyond 1e")]
)
def test_what_must_not_be_added_is_told_apart(value, message):
    update = trained(0)
    BASE.check(update)
    update["weight"][0, 0] = value
    with pytest.raises(InvalidInput, match=message):
        BASE.check(update)


@pytest.mark.parametrize("options", [{"clip_norm": 1.0}, {"aggregation": "fedmedian"}])
def test_what_needs_single_updates_takes_no_sums(options):
    assert begin().takes_sums
    assert not begin(**options).takes_sums
