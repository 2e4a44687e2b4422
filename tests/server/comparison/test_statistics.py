from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from wattfed.server.comparison.statistics import mean_interval, ratio_interval

VALUES = [107.0, 95.5, 121.0, 99.0, 103.2]


def test_the_interval_of_a_mean_is_students():
    found = mean_interval(VALUES)
    wanted = ttest_1samp(VALUES, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.mean == pytest.approx(np.mean(VALUES)) and found.n == 5


def test_ratios_are_paired_by_seed_and_their_interval_is_of_the_logarithms():
    ours = dict(enumerate([70.0, 60.0, 80.0, 71.0, 65.0]))
    theirs = dict(enumerate(VALUES)) | {9: 1e6}  # a seed that ours lacks
    found = ratio_interval(ours, theirs)
    logs = [math.log(theirs[seed] / ours[seed]) for seed in ours]
    wanted = ttest_1samp(logs, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((math.exp(wanted.low), math.exp(wanted.high)))
    assert found.mean == pytest.approx(math.exp(np.mean(logs))) and found.n == 5


def test_one_seed_has_no_interval_and_none_no_mean():
    one = mean_interval([3.0])
    assert one.mean == 3.0 and math.isnan(one.low) and math.isnan(one.high)
    assert math.isnan(ratio_interval({0: 1.0}, {1: 1.0}).mean)


def test_the_same_in_every_seed_has_no_width():
    found = mean_interval([2.0, 2.0, 2.0])
    assert (found.low, found.mean, found.high) == (2.0, 2.0, 2.0)
