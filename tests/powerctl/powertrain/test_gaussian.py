from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.cost_model import minibatch_cost
from powerctl.errors import InvalidInput, UnknownName
from powerctl.measurement import MeasurementTable
from powerctl.modes import ModeArrays, PowerMode
from powerctl.powertrain.correction import SignaturePredictor
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.prediction import Prediction
from powerctl.powertrain.prior import SIZES
from powerctl.powertrain.reference import load_reference
from powerctl.powertrain.reference_fit import build_reference
from powerctl.workload import load_workload

RESNET = "orin-agx-resnet18-train"
NOISE = (0.02, 0.01)


def some(table: MeasurementTable, n: int, seed: int = 0) -> MeasurementTable:
    return table.take(np.random.default_rng(seed).choice(len(table), n, replace=False))


def errors(prediction: Prediction, table: MeasurementTable) -> np.ndarray:
    """Absolute relative errors of time and of power, shape (2, n)."""
    return np.abs([prediction.time_s / table.time_s - 1, prediction.power_w / table.power_w - 1])


def inside(prediction: Prediction, table: MeasurementTable) -> np.ndarray:
    """Shares of times and of powers in their 90 % intervals."""
    time = np.log(table.time_s / prediction.time_s) / prediction.time_std
    power = np.log(table.power_w / prediction.power_w) / prediction.power_std
    return (np.abs([time, power]) < 1.645).mean(axis=1)


@pytest.fixture(scope="module")
def mobilenet(model_table) -> MeasurementTable:
    return model_table("mobilenetv3-train", noise=NOISE)


@pytest.fixture(scope="module")
def inference(model_table) -> MeasurementTable:
    return model_table("mobilenetv3-infer", per_axis=4, batch_sizes=(1, 4, 16, 64), noise=NOISE)


def predictor(**parameters) -> GaussianPredictor:
    return GaussianPredictor(**{"references": (RESNET,)} | parameters)


def test_without_measurements_it_says_what_the_reference_says_and_that_it_is_unsure(mobilenet):
    reference = load_reference(RESNET)
    modes = mobilenet.modes
    nothing = mobilenet.take(np.arange(0))
    prediction = predictor().fit(nothing).predict(modes)
    cost = minibatch_cost(reference.hardware, reference.signature, *modes, 16)
    np.testing.assert_allclose(prediction.time_s, cost.time_s, rtol=1e-3)
    np.testing.assert_allclose(prediction.power_w, cost.power_w, rtol=1e-3)
    assert np.all(prediction.time_std > 1) and np.all(prediction.power_std > 0.1)


def test_without_measurements_there_is_no_left_out_error(mobilenet):
    assert np.isnan(predictor().fit(mobilenet.take(np.arange(0))).loo_error_pct_).all()


def test_each_measurement_makes_it_surer(mobilenet):
    order = np.random.default_rng(0).permutation(len(mobilenet))
    spread = []
    for n in (0, 1, 4, 12, 40, 120):
        prediction = predictor().fit(mobilenet.take(order[:n])).predict(mobilenet.modes)
        spread.append([prediction.time_std.mean(), prediction.power_std.mean()])
    assert np.all(np.diff(spread, axis=0) < 0)


@pytest.mark.studies
def test_more_measurements_make_better_predictions(mobilenet):
    found = []
    for n in (5, 20, 80):
        fits = [predictor().fit(some(mobilenet, n, seed)) for seed in range(3)]
        found.append(np.mean([errors(f.predict(mobilenet.modes), mobilenet) for f in fits]))
    assert found[1] < 0.6 * found[0] and found[2] < 0.9 * found[1]


@pytest.mark.parametrize("n", [1, 5, 30])
def test_in_a_measured_mode_it_predicts_about_what_was_measured(model_table, n):
    table = some(model_table("mobilenetv3-train"), n)
    apart = errors(predictor().fit(table).predict(table.modes), table)
    assert apart.mean() < 0.015 and apart.max() < 0.06


@pytest.mark.parametrize("references", [(RESNET,), ()])
def test_its_90_percent_interval_covers_about_that_many_modes(model_table, references):
    shares = []
    for seed, workload in enumerate(("mobilenetv3-train", "lstm-train", "resnet18-train") * 2):
        table = model_table(workload, noise=(0.03, 0.015), seed=seed)
        fitted = predictor(references=references).fit(some(table, 40, seed))
        shares.append(inside(fitted.predict(table.modes), table))
    time, power = np.mean(shares, axis=0)
    assert 0.8 < time < 0.99 and 0.8 < power < 0.99


def test_an_outlier_barely_moves_predictions_elsewhere(mobilenet):
    table = some(mobilenet, 30)
    plain = predictor().fit(table).predict(mobilenet.modes)
    table.time_s[3] *= 1.6
    table.power_w[9] *= 1.6
    moved = predictor().fit(table).predict(mobilenet.modes)
    time, power = np.abs(np.log(plain.time_s / moved.time_s)), np.log(plain.power_w / moved.power_w)
    assert np.mean(time) < 0.015 and np.max(time) < 0.1
    assert np.mean(np.abs(power)) < 0.01 and np.max(np.abs(power)) < 0.05


def mean_errors(references: tuple[str, ...], table: MeasurementTable, n: int) -> np.ndarray:
    """Mean errors of time and power over all modes and six draws of `n` measured ones."""
    fits = [predictor(references=references).fit(some(table, n, seed)) for seed in range(6)]
    return np.mean([errors(fit.predict(table.modes), table) for fit in fits], axis=(0, 2))


def test_a_reference_helps_where_few_modes_are_measured():
    """The workload is like the reference, three times as large."""
    reference, board = load_reference(RESNET), load_board("orin-agx")
    sizes = {name: 3 * getattr(reference.signature, name) for name in SIZES}
    modes = board.space.thinned(5).arrays
    larger = replace(reference.signature, **sizes)
    cost = minibatch_cost(reference.hardware, larger, *modes, 16)
    table = MeasurementTable(modes, None, cost.time_s, cost.power_w)
    assert np.all(mean_errors((RESNET,), table, 5) < 0.6 * mean_errors((), table, 5))


def test_without_references_it_learns_from_what_is_measured(mobilenet):
    fitted = predictor(references=()).fit(some(mobilenet, 30))
    time, power = errors(fitted.predict(mobilenet.modes), mobilenet).mean(axis=1)
    assert time < 0.045 and power < 0.02


def test_one_mode_tells_how_large_a_workload_is(mobilenet):
    larger = some(mobilenet, 1)
    larger.time_s[:] *= 5
    one, five = (predictor().fit(t).predict(mobilenet.modes) for t in (some(mobilenet, 1), larger))
    assert np.median(five.time_s / one.time_s) == pytest.approx(5, rel=0.3)


def test_a_mode_measured_again_and_again_is_no_contradiction(mobilenet):
    again = mobilenet.take(np.full(4, 7))
    again = MeasurementTable(
        again.modes, None, again.time_s * np.array([1, 1.02, 0.99, 1.01]), again.power_w
    )
    prediction = predictor().fit(again).predict(mobilenet.modes.take([7]))
    assert errors(prediction, mobilenet.take(np.array([7]))).max() < 0.03


def test_another_board_starts_from_its_own_constants(model_table):
    table = model_table("mobilenetv3-train", "orin-nano", noise=NOISE)
    names = (RESNET, "orin-agx-mobilenetv3-train")
    nano = predictor(board="orin-nano", references=names).fit(some(table, 10))
    time, power = errors(nano.predict(table.modes), table).mean(axis=1)
    assert time < 0.08 and power < 0.04
    assert nano.board_.name == "orin-nano"


def test_a_batch_size_that_was_not_measured_lies_between_its_neighbours(model_table, inference):
    fitted = predictor(kind="infer").fit(some(inference, 60))
    between = model_table("mobilenetv3-infer", per_axis=4, batch_sizes=(8, 32))
    prediction = fitted.predict(between.modes, between.batch_size)
    time, power = errors(prediction, between).mean(axis=1)
    assert time < 0.06 and power < 0.03
    modes = load_board("orin-agx").space.thinned(3).arrays
    four, eight, sixteen = (fitted.predict(modes, size).time_s for size in (4, 8, 16))
    assert np.all((four < eight) & (eight < sixteen))


def test_rows_that_differ_only_in_batch_size_tell_fixed_from_per_sample_parts(inference):
    n = len(inference) // 4
    one_mode = inference.take(np.arange(3, len(inference), n))
    prediction = predictor(kind="infer").fit(one_mode).predict(one_mode.modes, one_mode.batch_size)
    assert one_mode.batch_size.tolist() == [1, 4, 16, 64]
    assert errors(prediction, one_mode).max() < 0.1


def test_batch_sizes_broadcast_against_the_modes(inference):
    fitted = predictor(kind="infer", batch_size=4).fit(some(inference, 20))
    modes = inference.modes.take(np.arange(5))
    np.testing.assert_array_equal(fitted.predict(modes), fitted.predict(modes, 4))
    np.testing.assert_array_equal(fitted.predict(modes, np.full(5, 4)), fitted.predict(modes, 4))


@pytest.mark.studies
def test_an_own_references_deviations_help_where_it_deviates_alike(model_table):
    """Both workloads are slower by a fifth at one GPU clock, which no cost model knows."""
    board = load_board("orin-agx")
    slow_hz = board.space.thinned(4).gpu_hz[2]

    def slowed(workload: str) -> MeasurementTable:
        table = model_table(workload, per_axis=4, noise=NOISE)
        table.time_s[table.modes.gpu_hz == slow_hz] *= 1.2
        return table

    own = build_reference(slowed("resnet18-train"), board, name="own", kind="train")
    target = slowed("mobilenetv3-train")
    with_own, shipped = (
        errors(predictor(references=(one,)).fit(some(target, 15)).predict(target.modes), target)
        for one in (own, RESNET)
    )
    assert with_own[0].mean() < 0.7 * shipped[0].mean()


def test_it_takes_all_known_references_unless_told(mobilenet, monkeypatch, tmp_path):
    monkeypatch.setenv("POWERCTL_HOME", str(tmp_path))
    fitted = GaussianPredictor().fit(some(mobilenet, 3))
    assert {r.name for r in fitted.references_} >= {RESNET, "orin-nano-resnet18-train"}


def test_left_out_errors_tell_how_good_it_is(mobilenet):
    time, power = predictor().fit(some(mobilenet, 60)).loo_error_pct_
    assert 1 < time < 4 and 0.5 < power < 2


def test_its_covariance_has_the_variances_of_its_predictions(mobilenet):
    fitted = predictor().fit(some(mobilenet, 12))
    modes = mobilenet.modes.take(np.arange(0, len(mobilenet), 9))
    prediction, (covariance, noise) = fitted.predict(modes), fitted.covariance(modes)
    std = np.sqrt(np.diag(covariance) + noise)
    np.testing.assert_allclose(
        std, np.concatenate([prediction.time_std, prediction.power_std]), rtol=1e-3
    )


def test_energy_and_power_bounds_follow_from_a_prediction(mobilenet):
    prediction = predictor().fit(some(mobilenet, 5)).predict(mobilenet.modes)
    np.testing.assert_allclose(prediction.energy_j, prediction.time_s * prediction.power_w)
    np.testing.assert_allclose(prediction.power_bound_w(0.0), prediction.power_w)
    assert np.all(prediction.power_bound_w(2.0) > prediction.power_w)


def test_no_modes_have_no_prediction(mobilenet):
    prediction = predictor().fit(some(mobilenet, 5)).predict(ModeArrays.of([]))
    assert all(values.shape == (0,) for values in prediction)


@pytest.mark.studies
def test_a_mode_between_the_clocks_of_the_board_can_be_predicted(mobilenet, own_reference):
    fitted = predictor(references=(own_reference,)).fit(some(mobilenet, 20))
    between = fitted.predict(ModeArrays.of([PowerMode(7, 1_500_000, 700_000_000, 3_199_000_000)]))
    assert 0 < between.time_s[0] < 10 and between.time_std[0] < 0.5


@pytest.mark.parametrize("bad", [(np.nan, 9.0), (0.0, 9.0), (1.0, np.inf), (-1.0, -9.0)])
def test_it_refuses_times_and_powers_that_are_no_positive_numbers(mobilenet, bad):
    table = some(mobilenet, 5)
    table.time_s[2], table.power_w[2] = bad
    with pytest.raises(InvalidInput, match="positive numbers"):
        predictor().fit(table)


@pytest.mark.parametrize("size", [0, -4, np.nan])
def test_it_refuses_batch_sizes_that_are_not_positive(mobilenet, size):
    with pytest.raises(InvalidInput, match="batch sizes must be positive"):
        predictor().fit(some(mobilenet, 5)).predict(mobilenet.modes, size)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"kind": "training"}, InvalidInput, "'train' or 'infer'"),
        ({"board": "orin-agy"}, UnknownName, "orin-agx"),
        ({"l4t": "1.0"}, InvalidInput, "oldest"),
        ({"references": ("orin-agx-resnet19-train",)}, UnknownName, RESNET),
        ({"batch_size": 0}, InvalidInput, "batch sizes"),
    ],
)
def test_it_refuses_parameters_that_mean_nothing(mobilenet, parameters, error, message):
    with pytest.raises(error, match=message):
        predictor(**parameters).fit(some(mobilenet, 5))


@pytest.mark.studies
def test_on_measured_tables_twenty_modes_are_enough(shared_table):
    table = shared_table("orin_agx_train_mobilenetv3.csv")
    found, shares = [], []
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(len(table))
        rest = table.take(rows[20:])
        prediction = predictor().fit(table.take(rows[:20])).predict(rest.modes)
        found.append(errors(prediction, rest).mean(axis=1))
        shares.append(inside(prediction, rest))
    time, power = np.median(found, axis=0)
    assert time < 0.045 and power < 0.026
    assert np.all((np.mean(shares, axis=0) > 0.8) & (np.mean(shares, axis=0) < 0.99))


def test_a_network_far_smaller_than_all_references_costs_what_its_counts_say():
    small = replace(
        load_workload("resnet18-train").signature,
        flop_per_sample=1e6,
        traffic_bytes_per_sample=5e4,
        host_cycles_per_sample=1e4,
        launch_cycles=1.5e6,
    )
    board = load_board("orin-agx")
    modes = board.space.thinned(3).arrays
    predictor = GaussianPredictor("orin-agx", batch_size=16, expected=small)
    predicted = predictor.fit(MeasurementTable.of([], "nothing")).predict(modes)
    counted = minibatch_cost(board.hardware, small, *modes, 16)
    assert abs(np.log(predicted.time_s / counted.time_s).mean()) < 0.2
    assert predicted.time_std.min() > 0.1


@pytest.mark.parametrize("factors", [(0.3, 1.0), (1.0, 0.5)], ids=["time", "power"])
def test_a_measured_mode_that_the_others_do_not_support_is_named(mobilenet, factors):
    table = some(mobilenet, 20)
    assert not len(predictor().fit(table).unsupported_)
    table.time_s[11] *= factors[0]
    table.power_w[11] *= factors[1]
    assert predictor().fit(table).unsupported_.tolist() == [11]


def test_what_is_less_known_claims_less(mobilenet):
    """Counts claim less than measurements, and another board's reference less than the board's."""
    modes, workload = mobilenet.modes, load_workload("mobilenetv3-train")
    counted = SignaturePredictor(load_board("orin-agx"), replace(workload, counted_share=1.0))
    few, nano = some(mobilenet, 4), ("orin-nano-resnet18-train",)
    ten = predictor().fit(some(mobilenet, 10)).predict(modes)
    of_counts = counted.predict(modes)
    here, elsewhere = (
        predictor(**given).fit(few).predict(modes) for given in ({}, {"references": nano})
    )
    for name in ("time_std", "power_std"):
        assert np.median(getattr(ten, name)) < np.median(getattr(of_counts, name))
        assert np.median(getattr(here, name)) < np.median(getattr(elsewhere, name))
