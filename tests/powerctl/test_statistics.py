from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import ttest_1samp

from powerctl.statistics import estimate, holm, ratio, ratio_by_seed, spoken_number


def test_a_mean_has_students_interval():
    values = [1.0, 2.0, 3.0, 4.0]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 3, loc=2.5, scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((2.5, low, high))


def test_a_ratio_is_welchs_test_of_logarithms():
    before, after = [1.0, 1.1, 0.9], [2.1, 2.0, 1.8, 2.3]
    found = ratio(before, after)
    test = stats.ttest_ind(np.log(after), np.log(before), equal_var=False)
    interval = test.confidence_interval(0.95)
    assert found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx(
        (math.exp(interval.low), math.exp(interval.high))
    )


def test_a_single_repetition_has_no_interval():
    assert math.isnan(estimate([1.0]).half_width)
    found = ratio([1.0], [2.0])
    assert found.value == pytest.approx(2)
    assert math.isnan(found.p)


def test_what_was_not_measured_has_no_ratio():
    assert math.isnan(ratio([math.nan, math.nan], [1.0, 1.0]).value)


def test_holm_raises_p_values_in_their_order():
    assert holm([0.01, 0.04, 0.03, math.nan, 0.005]) == pytest.approx(
        [0.03, 0.06, 0.06, math.nan, 0.02], nan_ok=True
    )


def test_numbers_are_spoken_without_exponents():
    assert [spoken_number(v) for v in (0.01234, 51.26, 1143.0)] == ["0.0123", "51.3", "1,140"]


VALUES = [107.0, 95.5, 121.0, 99.0, 103.2]


def test_the_interval_of_a_mean_is_students():
    found = estimate(VALUES)
    wanted = ttest_1samp(VALUES, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.mean == pytest.approx(np.mean(VALUES)) and found.n == 5


def test_ratios_are_paired_by_seed_and_their_interval_is_of_the_logarithms():
    ours = dict(enumerate([70.0, 60.0, 80.0, 71.0, 65.0]))
    theirs = dict(enumerate(VALUES)) | {9: 1e6}  # a seed that ours lacks
    found = ratio_by_seed(ours, theirs)
    logs = [math.log(theirs[seed] / ours[seed]) for seed in ours]
    wanted = ttest_1samp(logs, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((math.exp(wanted.low), math.exp(wanted.high)))
    assert found.mean == pytest.approx(math.exp(np.mean(logs))) and found.n == 5


def test_one_seed_has_no_interval_and_none_no_mean():
    one = estimate([3.0])
    assert one.mean == 3.0 and math.isnan(one.low) and math.isnan(one.high)
    assert math.isnan(ratio_by_seed({0: 1.0}, {1: 1.0}).mean)


def test_the_same_in_every_seed_has_no_width():
    found = estimate([2.0, 2.0, 2.0])
    assert (found.low, found.mean, found.high) == (2.0, 2.0, 2.0)
