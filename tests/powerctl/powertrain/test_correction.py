from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.devices.twin import Twin
from powerctl.errors import InvalidInput
from powerctl.pagoda.counted import CountedModel
from powerctl.powertrain.correction import SignaturePredictor
from powerctl.workload import Workload, load_workload

BOARD, JOB = load_board("orin-nano"), load_workload("mobilenetv3-train")
MODES = BOARD.space.arrays


def test_it_learns_the_units_factor_from_a_few_modes():
    truth = SignaturePredictor(BOARD, JOB).predict(MODES)
    predictor = SignaturePredictor(BOARD, JOB)
    for index in (100, 700, 1500):
        predictor.partial_fit(MODES.mode(index), truth.time_s[index] * 1.1, truth.power_w[index])
    learned = predictor.predict(MODES)
    assert np.all((learned.time_s / truth.time_s > 1.05) & (learned.time_s / truth.time_s < 1.1))
    np.testing.assert_allclose(learned.power_w, truth.power_w)
    assert np.all(learned.power_std < truth.power_std)


def test_its_uncertainty_covers_what_units_do():
    rng = np.random.default_rng(0)
    prediction = SignaturePredictor(BOARD, JOB).predict(MODES)
    bound_w = prediction.power_bound_w(3.0)
    for unit in range(40):
        index = int(rng.integers(len(BOARD.space)))
        assert Twin(BOARD, unit=unit).steady(MODES.mode(index), JOB)[1] < bound_w[index]


def test_its_state_travels():
    one = SignaturePredictor(BOARD, JOB).partial_fit(MODES.mode(5), 1.0, 9.0)
    other = SignaturePredictor(BOARD, JOB).load_state(one.state())
    np.testing.assert_array_equal(one.predict(MODES).time_s, other.predict(MODES).time_s)


def test_it_refuses_what_is_no_measurement_and_what_it_cannot_know():
    predictor = SignaturePredictor(BOARD, JOB)
    for time_s, power_w in ((0.0, 5.0), (1.0, -5.0), (float("nan"), 5.0)):
        with pytest.raises(InvalidInput):
            predictor.partial_fit(MODES.mode(0), time_s, power_w)
    with pytest.raises(InvalidInput, match="no signature"):
        SignaturePredictor(BOARD, Workload("x", "train", 1)).predict(MODES)


def test_what_was_only_counted_is_less_sure_than_what_was_measured():
    spreads = {}
    for share in (None, 1.0, 0.5, 0.0):
        predicted = SignaturePredictor(BOARD, replace(JOB, counted_share=share)).predict(MODES)
        spreads[share] = (predicted.time_std[0], predicted.power_std[0])
    fitted, counted, half, nothing = spreads.values()
    ten_measured = (0.109, 0.069)  # a Gaussian predictor's, of ten modes
    for values in zip(fitted, ten_measured, counted, half, nothing, strict=True):
        assert list(values) == sorted(values)


@cache
def counted(model, kind):
    return CountedModel.of(model, None, kind).workload(16)


@pytest.mark.parametrize(
    ("file", "board", "model", "kind"),
    [
        ("orin_agx_train_resnet18.csv", "orin-agx", "resnet18", "train"),
        ("orin_agx_train_mobilenetv3.csv", "orin-agx", "mobilenetv3", "train"),
        ("orin_nano_train_resnet18.csv", "orin-nano", "resnet18", "train"),
    ],
)
def test_intervals_of_what_was_counted_hold_what_was_measured(
    shared_table, file, board, model, kind
):
    table = shared_table(file)
    job = counted(model, kind)
    predicted = SignaturePredictor(load_board(board), job).predict(table.modes)
    for truth, expected, std in (
        (table.time_s, predicted.time_s, predicted.time_std),
        (table.power_w, predicted.power_w, predicted.power_std),
    ):
        held = np.abs(np.log(truth / expected)) < 1.645 * std
        assert 0.85 <= held.mean() < 1
