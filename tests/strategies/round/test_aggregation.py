"""Models with buffers through every aggregation: what becomes of each kind of array."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.in_process_grid import InProcessGrid
from powerctl.errors import InvalidInput
from tests.strategies.offers_of import report
from tests.strategies.round.test_strategy import app
from wattfed.server.run.checkpoints import from_bytes, to_bytes
from wattfed.strategies.policies.all_clients import AllClients
from wattfed.strategies.protocol import RoundReport
from wattfed.strategies.round.aggregation import AGGREGATIONS, make_aggregation
from wattfed.strategies.round.in_flight import InFlightUpdate, replies_to_aggregate
from wattfed.strategies.round.numpy_reply import NumpyReply
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.round.updates import ClientUpdate, GlobalModel
from wattfed.strategies.run_config import RunConfig

PARAMETERS = frozenset({"weight", "scale", "none"})
MODEL = {
    "weight": np.float32([[1.0, -2.0], [3.0, 0.5]]),
    "scale": np.array(2.0, dtype=np.float32),  # of no dimension
    "none": np.zeros((0, 3), dtype=np.float32),
    "mean": np.float32([0.0, 0.0]),
    "variance": np.float32([1.0, 1.0]),
    "batches": np.array(10, dtype=np.int64),
    "index": np.array([[0, 7], [123_456_789_012, -1]]),
    "bytes": np.array([0, 255], dtype=np.uint8),
    "mask": np.array([True, False, True]),
}
N, HUGE = 7, 1e30
GRID = InProcessGrid(app, 1, {})
AVERAGING = ("fedavg", "fedprox", "fedavgm", "fedadam", "fedadagrad", "fedyogi")
ROBUST = ("fedtrimmedavg", "krum", "multikrum", "bulyan")
every_aggregation = pytest.mark.parametrize("aggregation", AGGREGATIONS.names())


def record(arrays):
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def trained(client: int, model=MODEL, spread: float = 0.01) -> dict[str, np.ndarray]:
    """What a client makes of a model: variances near 0.1, counters by 1 to 50 higher."""
    rng = np.random.default_rng(client)
    of_client = dict(model)
    for name in ("weight", "scale", "mean"):
        noise = rng.normal(0.05, spread, model[name].shape)
        of_client[name] = (model[name] + noise).astype(np.float32)
    of_client["variance"] = rng.uniform(0.01, 0.1, 2).astype(np.float32)
    of_client["batches"] = model["batches"] + int(rng.integers(1, 51))
    return of_client


def begin(model=MODEL, parameters=PARAMETERS, **options):
    """An aggregation that has been told the model of its first round."""
    aggregation = make_aggregation(RunConfig(per_round=12, **options), parameters)
    tell(aggregation, 1, model)
    return aggregation


def tell(aggregation, server_round, model):
    return list(aggregation.configure_train(server_round, record(model), ConfigRecord(), GRID))


def end(aggregation, updates, server_round=1, examples=None):
    """The model after a round; None if it stays."""
    examples = examples or [10] * len(updates)
    replies = [NumpyReply(u, {"num-examples": n}) for u, n in zip(updates, examples, strict=True)]
    arrays, _ = aggregation.aggregate_train(server_round, replies)
    return None if arrays is None else {name: a.numpy() for name, a in arrays.items()}


def aggregated(updates, examples=None, **options):
    return end(begin(**options), updates, examples=examples)


def rounds(aggregation, n, first=1, model=MODEL):
    """The model after some rounds of seven clients."""
    for server_round in range(first, first + n):
        tell(aggregation, server_round, model)
        updates = [trained(100 * server_round + client, model) for client in range(N)]
        model = end(aggregation, updates, server_round)
    return model


@every_aggregation
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_every_array_keeps_its_place_type_and_shape(aggregation, clip_norm):
    after = rounds(begin(aggregation=aggregation, clip_norm=clip_norm), 1)
    assert list(after) == list(MODEL)
    for name, array in after.items():
        assert (array.dtype, array.shape) == (MODEL[name].dtype, MODEL[name].shape), name


@every_aggregation
def test_running_variances_stay_within_what_clients_saw(aggregation):
    after = rounds(begin(aggregation=aggregation), 6)
    assert (after["variance"] >= 0.01).all() and (after["variance"] <= 0.1).all()


@every_aggregation
def test_what_nobody_changed_stays_and_counters_take_the_largest(aggregation):
    updates = [trained(client) for client in range(N)]
    after = aggregated(updates, aggregation=aggregation)
    for name in ("index", "bytes", "mask"):
        np.testing.assert_array_equal(after[name], MODEL[name])
    counters = sorted(int(update["batches"]) for update in updates)
    assert after["batches"] == counters[-2 if aggregation in ROBUST else -1]


@pytest.mark.parametrize("aggregation", AVERAGING)
def test_floating_buffers_are_averaged_by_examples(aggregation):
    updates = [trained(client) for client in range(3)]
    after = aggregated(updates, [1, 2, 5], aggregation=aggregation)
    for name in ("mean", "variance"):
        expected = np.average([u[name] for u in updates], axis=0, weights=[1, 2, 5])
        np.testing.assert_allclose(after[name], expected, rtol=1e-5)


def test_other_integers_take_the_median_and_booleans_what_most_say():
    def update(number, flag):
        return {**MODEL, "batches": np.array(number), "mask": np.array([flag, True, False])}

    after = aggregated([update(3, True), update(12, True), update(5, False)])
    assert after["batches"] == 5
    np.testing.assert_array_equal(after["mask"], [True, True, False])


def test_clipping_measures_parameters_alone():
    honest = [trained(client) for client in range(N)]
    plain = aggregated(honest, clip_norm=1.5)
    shifted = [{**u, "mean": u["mean"] + 1e6 * i} for i, u in enumerate(honest)]
    np.testing.assert_array_equal(aggregated(shifted, clip_norm=1.5)["weight"], plain["weight"])


@every_aggregation
def test_the_order_in_which_clients_send_their_arrays_does_not_matter(aggregation):
    updates = [trained(client) for client in range(N)]
    mixed = [
        {name: update[name] for name in np.random.default_rng(client).permutation(list(update))}
        for client, update in enumerate(updates)
    ]
    one, two = (aggregated(each, aggregation=aggregation) for each in (updates, mixed))
    for name in MODEL:
        np.testing.assert_array_equal(one[name], two[name])


@every_aggregation
@settings(max_examples=settings.default.max_examples // 2)  # of each aggregation
@given(order=st.permutations(range(N)))
def test_the_order_of_clients_changes_rounding_at_most(aggregation, order):
    updates, examples = [trained(client) for client in range(N)], [1, 2, 3, 4, 5, 6, 7]
    one = aggregated(updates, examples, aggregation=aggregation)
    two = aggregated(
        [updates[i] for i in order], [examples[i] for i in order], aggregation=aggregation
    )
    for name in MODEL:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-6)


@every_aggregation
def test_a_model_without_parameters_is_aggregated(aggregation):
    buffers = {name: MODEL[name] for name in ("mean", "batches", "mask")}
    counters = {name: MODEL[name] for name in ("batches", "mask")}
    for model in (buffers, counters):
        updates = [{name: trained(client)[name] for name in model} for client in range(N)]
        for options in ({}, {"clip_norm": 1.0}):
            begun = begin(model, frozenset(), aggregation=aggregation, **options)
            assert list(end(begun, updates)) == list(model)


def test_without_names_all_floating_arrays_are_parameters():
    assert begin(parameters=None).base.parameter_names == tuple(MODEL)[:5]
    assert begin().base.parameter_names == ("weight", "scale", "none")
    assert begin().base.floating_buffers == ("mean", "variance")


def test_half_precision_is_summed_in_single():
    model = {"weight": np.zeros(1, dtype=np.float16)}
    updates = [{"weight": np.float16([value])} for value in (60_000, 60_000, 60_000)]
    after = end(begin(model, None, aggregation="fedmedian"), updates)
    assert after["weight"].dtype == np.float16 and after["weight"] == np.float16(60_000)
    after = end(begin(model, None, aggregation="fedadam"), updates)
    assert np.isfinite(after["weight"]).all()


# hostile clients


def hostile_updates(n, far):
    return [{**trained(900 + i, spread=1.0), "weight": MODEL["weight"] + far} for i in range(n)]


@pytest.mark.parametrize("aggregation", ["krum", "multikrum", "bulyan"])
def test_selection_leaves_out_the_hostile_whatever_counters_say(aggregation):
    """Honest counters differ by up to 50, those of the hostile lie in their middle."""
    n = 12 if aggregation == "bulyan" else 10
    honest = [trained(client) for client in range(n - 2)]
    hostile = hostile_updates(2, -1.0)
    for update in hostile:
        update["batches"] = MODEL["batches"] + 25
    after = aggregated([*hostile, *honest], aggregation=aggregation, hostile=2)
    low, high = (bound([u["weight"] for u in honest], axis=0) for bound in (np.min, np.max))
    assert (low - 1e-6 <= after["weight"]).all() and (after["weight"] <= high + 1e-6).all()


def test_multikrum_takes_every_honest_update():
    honest = [trained(client) for client in range(8)]
    after = aggregated([*hostile_updates(2, -1.0), *honest], aggregation="multikrum", hostile=2)
    np.testing.assert_allclose(
        after["weight"], np.mean([u["weight"] for u in honest], axis=0), rtol=1e-6
    )


@pytest.mark.parametrize("aggregation", ["krum", "multikrum"])
def test_small_changes_of_large_weights_are_told_apart(aggregation):
    """At 10,000 single precision knows squares to about 8: distances were lost in it."""
    model = {"weight": np.full(50, 10_000, dtype=np.float32)}
    rng = np.random.default_rng(0)
    honest = [{"weight": model["weight"] + rng.normal(0, 0.01, 50).astype("f4")} for _ in range(8)]
    hostile = [{"weight": model["weight"] - np.float32(0.5)} for _ in range(2)]
    begun = begin(model, None, aggregation=aggregation, hostile=2)
    after = end(begun, [*hostile, *honest])
    assert np.abs(after["weight"] - model["weight"]).max() < 0.1


@pytest.mark.parametrize("aggregation", ROBUST)
@given(
    hostile=st.integers(1, 2),
    seed=st.integers(0, 1000),
    values=st.lists(st.floats(-HUGE, HUGE), min_size=2, max_size=2),
)
def test_a_hostile_minority_gets_no_buffer_out_of_the_hull_of_the_honest(
    aggregation, hostile, seed, values
):
    honest = [trained(seed + client) for client in range(4 * hostile + 3 - hostile)]
    liars = [dict(trained(seed + 800 + i)) for i in range(hostile)]
    for liar, value in zip(liars, values, strict=False):
        liar["variance"] = np.full(2, value, dtype=np.float32)
        liar["batches"] = np.array(2**62)
        liar["mask"] = ~MODEL["mask"]
    after = aggregated([*liars, *honest], aggregation=aggregation, hostile=hostile)
    seen = [u["variance"] for u in honest]
    assert (np.min(seen, axis=0) * 0.999 <= after["variance"]).all()
    assert (after["variance"] <= np.max(seen, axis=0) * 1.001).all()
    assert after["batches"] <= max(u["batches"] for u in honest)
    np.testing.assert_array_equal(after["mask"], MODEL["mask"])


@given(
    seed=st.integers(0, 1000),
    values=st.lists(st.floats(-HUGE, HUGE), min_size=2, max_size=2),
)
def test_a_trimmed_mean_stays_in_the_hull_of_the_honest(seed, values):
    honest = [trained(seed + client) for client in range(5)]
    liars = [{**MODEL, "weight": np.full((2, 2), value, dtype=np.float32)} for value in values]
    after = aggregated([*liars, *honest], aggregation="fedtrimmedavg", hostile=2)["weight"]
    seen = [u["weight"] for u in honest]
    assert (np.min(seen, axis=0) - 1e-5 <= after).all()
    assert (after <= np.max(seen, axis=0) + 1e-5).all()


@given(seed=st.integers(0, 1000), far=st.floats(1, HUGE), sign=st.sampled_from([-1, 1]))
def test_krum_selects_an_honest_update_where_the_hostile_stand_apart(seed, far, sign):
    honest = [trained(seed + client) for client in range(5)]
    after = aggregated(
        [*hostile_updates(2, np.float32(sign * far)), *honest], aggregation="krum", hostile=2
    )
    assert any(np.array_equal(after["weight"], u["weight"]) for u in honest)


# what is no model


def test_an_aggregate_that_is_not_finite_is_not_taken_and_leaves_no_trace(caplog):
    huge = {**MODEL, "weight": np.full((2, 2), 3e38, dtype=np.float32)}
    low = {**MODEL, "weight": np.full((2, 2), -3e38, dtype=np.float32)}
    for aggregation in ("fedavgm", "fedadam", "fedyogi", "fedadagrad"):
        caplog.clear()
        begun = begin(low, aggregation=aggregation)
        assert end(begun, [huge] * 3) is None
        (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert line.startswith("round 1: the aggregate is not finite (")
        assert line.endswith("): the model stays as it was")
        again, fresh = (rounds(each, 2) for each in (begun, begin(aggregation=aggregation)))
        for name in MODEL:
            np.testing.assert_array_equal(again[name], fresh[name])


def test_moments_that_overflow_are_not_kept_either():
    """The model would be finite, and stand still ever after."""
    begun = begin(aggregation="fedadam")
    assert end(begun, [{**MODEL, "weight": np.full((2, 2), 1e30, dtype=np.float32)}] * 3) is None
    assert begun.memory.state() == {"m_t": None, "v_t": None}


def test_double_precision_beyond_the_models_own_is_no_update():
    base = GlobalModel.of(record(MODEL), PARAMETERS)
    beyond = {**MODEL, "weight": np.full((2, 2), 1e300)}
    base.update(NumpyReply(dict(MODEL), {}), {})
    with pytest.raises(InvalidInput, match="'weight' is float64"):
        base.update(NumpyReply(beyond, {}), {})


@pytest.mark.parametrize(
    "changes",
    [
        {"mask": np.int64([1, 0, 1])},
        {"batches": np.array(10.5)},
        {"weight": np.array([["1", "2"], ["3", "4"]])},
        {"weight": np.ones((2, 2), dtype=np.complex64)},
    ],
)
def test_arrays_of_another_kind_are_no_update(changes):
    with pytest.raises(InvalidInput, match=f"'{next(iter(changes))}' is "):
        GlobalModel.of(record(MODEL), PARAMETERS).update(NumpyReply({**MODEL, **changes}, {}), {})


# state


@every_aggregation
def test_it_goes_on_from_its_state_as_if_without_a_break(aggregation):
    whole = begin(aggregation=aggregation)
    between = rounds(whole, 3)
    kept = from_bytes(to_bytes(whole.memory.state()))
    fresh = begin(aggregation=aggregation)
    fresh.memory.restore(kept)
    one, two = (rounds(each, 3, first=4, model=between) for each in (whole, fresh))
    for name in MODEL:
        np.testing.assert_array_equal(one[name], two[name])


def test_what_server_optimizers_keep_is_theirs():
    kept = {
        name: set(begin(aggregation=name).memory.state())
        for name in AGGREGATIONS.names()
        if begin(aggregation=name).memory.state()
    }
    moments = {"m_t", "v_t"}
    assert kept == {
        "fedavgm": {"momentum_vector"},
        **dict.fromkeys(("fedadam", "fedadagrad", "fedyogi"), moments),
    }
    with pytest.raises(InvalidInput, match="FedAvg, which has none: m_t, v_t"):
        begin().memory.restore(begin(aggregation="fedadam").memory.state())


def test_a_server_optimizer_steps_from_the_model_also_where_nobody_was_asked():
    """Late updates may come in a round in which the policy selects nobody."""
    aggregation = make_aggregation(RunConfig(aggregation="fedadam"), PARAMETERS)
    strategy = SelectingStrategy(AllClients(), aggregation, per_round=4)
    strategy.instruct(1, record(MODEL), ConfigRecord(), [1])
    later = {**MODEL, "weight": MODEL["weight"] + 100}
    assert strategy.instruct(2, record(later), ConfigRecord(), []) == []
    after = end(aggregation, [trained(client, later) for client in range(3)], server_round=2)
    assert np.abs(after["weight"] - later["weight"]).max() < 1


# late updates


def flight(arrays, base, late):
    reply = NumpyReply(arrays, {"num-examples": 4})
    told: RoundReport = report(0, staleness=late)
    return InFlightUpdate(told, ClientUpdate(reply, base), 1, 0.0)


@pytest.mark.parametrize("rule", ["fedbuff", "refl"])
def test_a_late_update_brings_its_change_of_every_kind_of_array(rule):
    then = GlobalModel.of(record(MODEL), PARAMETERS)
    now = {
        **MODEL,
        "weight": MODEL["weight"] + 10,
        "batches": np.array(100),
        "mask": ~MODEL["mask"],
        "bytes": np.array([3, 4], dtype=np.uint8),
        "variance": np.float32([0.5, 0.5]),
    }
    base = GlobalModel.of(record(now), PARAMETERS)
    late = {**MODEL, "weight": MODEL["weight"] + 1, "batches": np.array(15)}
    late["mask"] = np.array([False, False, True])  # the first one was changed
    late["variance"] = np.float32([0.1, 0.2])
    fresh, moved = replies_to_aggregate([flight(now, base, 0), flight(late, then, 2)], base, rule)
    assert fresh.content["arrays"]["weight"].numpy() is now["weight"]
    brought = {name: array.numpy() for name, array in moved.content["arrays"].items()}
    np.testing.assert_allclose(brought["weight"], MODEL["weight"] + 11)
    assert brought["batches"] == 105
    np.testing.assert_array_equal(brought["mask"], [True, True, False])
    np.testing.assert_array_equal(brought["bytes"], now["bytes"])
    np.testing.assert_array_equal(brought["variance"], late["variance"])
    assert 0 < moved.content["metrics"]["num-examples"] < 4


def test_the_weight_of_a_late_update_depends_on_parameters_alone():
    base = GlobalModel.of(record(MODEL), PARAMETERS)

    def weight(**changes):
        updates = [trained(0), {**trained(1), **changes}, trained(2)]
        flights = [flight(u, base, late) for u, late in zip(updates, (0, 1, 1), strict=True)]
        return replies_to_aggregate(flights, base, "refl")[1].content["metrics"]["num-examples"]

    assert weight(mean=np.float32([1e6, 0]), batches=np.array(10**9)) == weight()
    assert weight(weight=MODEL["weight"] + 5) != weight()


def test_late_updates_of_a_model_without_parameters_count():
    model = {"batches": MODEL["batches"], "mask": MODEL["mask"]}
    base = GlobalModel.of(record(model), frozenset())
    flights = [flight(model, base, 0), flight(model, base, 1)]
    assert len(replies_to_aggregate(flights, base, "refl")) == 2
