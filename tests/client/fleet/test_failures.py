from __future__ import annotations

import numpy as np
import pytest

from wattfed.client.fleet.counters import uniform
from wattfed.client.fleet.dropout import Failures
from wattfed.client.fleet.hours import hour_of_day, hours_between, shape_of_day

N = 20_000
EVERYONE = np.arange(N)


def test_clients_crash_and_fall_silent_as_often_as_they_are_said_to():
    failures = Failures.read({"crashes_per_h": 0.5, "silent_share": 0.1}, N)
    crash_s = failures.crash_after_s(EVERYONE, 0, 1)
    assert crash_s.mean() == pytest.approx(7200, rel=0.03)
    assert failures.silent(EVERYONE, 0, 1).mean() == pytest.approx(0.1, rel=0.1)


def test_a_failure_depends_on_seed_round_and_client_alone():
    failures = Failures.read({"crashes_per_h": 0.5}, N)
    crash_s = failures.crash_after_s(EVERYONE, 0, 1)
    assert failures.crash_after_s(EVERYONE[7:8], 0, 1) == crash_s[7:8]
    assert not np.isclose(failures.crash_after_s(EVERYONE, 0, 2), crash_s).any()
    assert not np.isclose(failures.crash_after_s(EVERYONE, 1, 1), crash_s).any()


def test_by_default_nobody_fails():
    failures = Failures.read({}, N)
    assert np.isinf(failures.crash_after_s(EVERYONE, 0, 1)).all()
    assert not failures.silent(EVERYONE, 0, 1).any()


def test_counted_random_numbers_are_even_and_unrelated():
    numbers = uniform(0, 1, EVERYONE[:, None], np.arange(8))
    assert np.histogram(numbers, bins=10, range=(0, 1))[0] == pytest.approx(
        np.full(10, numbers.size / 10), rel=0.03
    )
    assert np.abs(np.corrcoef(numbers.T) - np.eye(8)).max() < 0.03
    assert numbers.min() > 0 and numbers.max() < 1


def test_hours_of_the_day():
    assert hour_of_day(25.5 * 3600) == 1
    assert np.flatnonzero(hours_between([22, 2])).tolist() == [0, 1, 22, 23]
    assert np.flatnonzero(hours_between([9, 11])).tolist() == [9, 10]
    assert shape_of_day("traffic").max() == 1 and shape_of_day([0.5] * 24).sum() == 12
