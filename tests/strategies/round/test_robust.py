"""Quorum, clipping and aggregations that withstand hostile clients, on updates of one number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from benchmarks.in_process_grid import InProcessGrid
from powerctl.errors import InvalidInput
from tests.strategies.round.test_strategy import app
from wattfed.strategies.round.aggregation import make_aggregation
from wattfed.strategies.run_config import RunConfig

START = [np.float32([1.0, 1.0]), np.array([7])]  # weights, and a counter


def aggregated(changes, **options) -> list[np.ndarray] | None:
    """The aggregate of updates that add something to the first weight, and one to the counter."""
    strategy = make_aggregation(RunConfig(per_round=12, **options))
    grid = InProcessGrid(app, len(changes), {})
    drafts = strategy.configure_train(1, ArrayRecord(START), ConfigRecord(), grid)
    replies = []
    for draft, change in zip(drafts, changes, strict=True):
        arrays = ArrayRecord([START[0] + np.float32([change, 0]), START[1] + 1])
        content = {"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}
        replies.append(Message(RecordDict(content), reply_to=draft))
    arrays, _ = strategy.aggregate_train(1, replies)
    return None if arrays is None else arrays.to_numpy_ndarrays()


def test_fewer_updates_than_the_quorum_change_nothing(caplog):
    assert aggregated([1, 1], min_reports=3) is None
    assert "2 updates, min-reports is 3" in caplog.text
    np.testing.assert_allclose(aggregated([1, 1, 1], min_reports=3)[0], [2, 1])


def test_an_update_is_shortened_to_the_median_and_its_counter_is_left():
    weights, counter = aggregated([1, 1, -100], clip_norm=1.0)
    np.testing.assert_allclose(weights, [1 + 1 / 3, 1], rtol=1e-6)
    assert counter == 8 and weights.dtype == np.float32


def test_updates_within_the_bound_are_left_as_they_are():
    np.testing.assert_array_equal(aggregated([1, 2, 3], clip_norm=1.5)[0], aggregated([1, 2, 3])[0])


@pytest.mark.parametrize("aggregation", ["fedtrimmedavg", "krum", "multikrum", "bulyan"])
@pytest.mark.parametrize("n", [7, 10])
def test_one_hostile_update_has_no_say_however_many_arrive(aggregation, n):
    weights, _ = aggregated([1.0] * (n - 1) + [-1000.0], aggregation=aggregation, hostile=1)
    np.testing.assert_allclose(weights, [2, 1])


@pytest.mark.parametrize("aggregation", ["fedtrimmedavg", "krum", "multikrum", "bulyan"])
def test_with_fewer_than_withstand_the_hostile_the_model_stays(aggregation):
    assert aggregated([1, 1, 1, -1000], aggregation=aggregation, hostile=2) is None


def test_what_a_round_cannot_withstand_is_said_before_the_run():
    config = RunConfig(per_round=6, aggregation="bulyan")
    with pytest.raises(InvalidInput, match="at least 7, per-round is 6"):
        make_aggregation(config)
    make_aggregation(replace(config, per_round=7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_reports": 0}, "min-reports must be at least 1"),
        ({"min_reports": 7}, "more than the 6 of per-round"),
        ({"clip_norm": -1.0}, "clip-norm cannot be negative"),
        ({"hostile": -1}, "hostile cannot be negative"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        RunConfig(**options)
