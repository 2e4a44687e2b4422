from __future__ import annotations

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.devices.twin import Twin
from powerctl.errors import InvalidInput
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
