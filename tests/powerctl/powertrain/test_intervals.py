from __future__ import annotations

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.modes import ModeArrays
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.intervals import shown_scales

MODES = load_board("orin-agx").space.thinned(5).arrays
SOME = MODES.take(np.random.default_rng(0).choice(len(MODES.cores), 20, replace=False))


def alike(apart: float) -> np.ndarray:
    return np.full((2, len(SOME.cores)), apart)


def test_intervals_are_as_wide_as_the_measured_modes_show(model_table):
    """Of a workload that is as expected they shrink, of one that is not they widen."""
    quiet, loud = (
        GaussianPredictor(references=["orin-agx-resnet18-train"])
        .fit(table.take(np.random.default_rng(0).choice(len(table), 12, replace=False)))
        .posterior_.scales
        for table in (model_table("mobilenetv3-train", noise=(x, x)) for x in (0.001, 0.2))
    )
    assert np.all(quiet < 1) and np.all(loud > quiet)


def test_without_measurements_they_are_as_expected():
    nothing = MODES.take(np.arange(0))
    assert shown_scales(np.empty((2, 0)), nothing, MODES).tolist() == [1, 1]


def test_few_modes_hardly_change_what_is_expected():
    few, many = (shown_scales(alike(2.5)[:, :n], SOME.take(np.arange(n)), MODES) for n in (1, 20))
    assert np.all(few / shown_scales(alike(1)[:, :1], SOME.take(np.arange(1)), MODES) < 2)
    assert np.all(many > 2.3)


def test_a_mode_counts_for_the_modes_around_it():
    """Ten modes that stand together at the lowest clocks say less than two among all others."""
    order = np.lexsort(MODES[::-1])
    at = np.concatenate([order[:10], order[[len(order) // 2, len(order) * 3 // 4]]])
    measured = MODES.take(at)
    off = np.tile(np.where(np.arange(12) < 10, 2.5, 0.1), (2, 1))
    on = np.tile(np.where(np.arange(12) < 10, 0.1, 2.5), (2, 1))
    assert np.all(shown_scales(on, measured, MODES) > 1.3 * shown_scales(off, measured, MODES))


def test_the_batch_sizes_of_a_mode_say_no_more_than_one():
    once = shown_scales(alike(2.0), SOME, MODES)
    thrice = ModeArrays(*(np.tile(axis, 3) for axis in SOME))
    np.testing.assert_allclose(shown_scales(np.tile(alike(2.0), 3), thrice, MODES), once)


def test_a_glitch_is_no_reason_for_wide_intervals():
    far, farther = alike(1.0), alike(1.0)
    far[0, 3], farther[0, 3] = 3.0, 300.0
    time, power = shown_scales(farther, SOME, MODES)
    assert time == pytest.approx(shown_scales(far, SOME, MODES)[0])
    assert power == pytest.approx(shown_scales(alike(1.0), SOME, MODES)[1])
