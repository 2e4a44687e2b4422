from __future__ import annotations

import numpy as np
import pytest

from powerctl.errors import UnknownName
from tests.strategies.offers_of import clients, offer, report, rng
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.refl import REFL
from wattfed.strategies.round_policy import STALENESS_RULES, staleness_weights


def alike(n, **changes):
    return Offers.of([offer(i, **changes) for i in range(n)])


def leaving(times_s):
    return Offers.of([offer(i, available_s=time) for i, time in enumerate(times_s)])


def test_who_leaves_after_this_round_but_before_the_next_ends_goes_first():
    offers = leaving([np.inf, 15.0, 100.0, 20.0, 5.0, np.inf])  # mu is the median round: 10.5 s
    assert clients(REFL(avail_probability=1.0).select(offers, 2, 1, rng())) == [1, 3]


def test_chance_fills_the_rest():
    offers = leaving([15.0] + [np.inf] * 9)
    chosen = [clients(REFL(avail_probability=1.0).select(offers, 3, 1, rng(i))) for i in range(40)]
    assert all(0 in one for one in chosen)
    assert {c for one in chosen for c in one} == set(range(10))


def test_a_prediction_errs_as_often_as_it_is_told_to():
    offers = leaving([15.0] * 2 + [np.inf] * 8)
    policies = [REFL(avail_probability=0.5) for _ in range(300)]
    hits = [0 in clients(p.select(offers, 2, 1, rng(i))) for i, p in enumerate(policies)]
    assert np.mean(hits) == pytest.approx(0.2, abs=0.07)  # as good as no prediction


def test_the_expected_duration_follows_the_rounds():
    policy = REFL(alpha=0.25)
    policy.observe([report(0, time_s=19.5), report(1, time_s=9.5)])
    policy.observe([report(0, time_s=39.5)])
    assert policy._mu_s == 0.75 * 40 + 0.25 * 20


def test_late_updates_on_their_way_shrink_the_round_down_to_a_share():
    slow = [offer(i, fast_s=1.8) for i in range(6)]
    offers = Offers.of(slow + [offer(i) for i in range(6, 30)])
    policy = REFL()
    policy.select(Offers.of(slow), 6, 1, rng())
    policy.observe([report(i) for i in range(2)])  # the other four take longer
    assert len(policy.select(offers, 6, 2, rng())) == 3  # not 2: at least half


def test_a_client_that_died_does_not_shrink_the_rounds_for_ever():
    policy, sizes = REFL(), []
    for server_round in range(1, 6):
        chosen = clients(policy.select(alike(30), 6, server_round, rng(server_round)))
        sizes.append(len(chosen))
        policy.observe([report(c, time_s=30.0) for c in chosen[1:]])
    assert sizes == [6] * 5


def test_a_late_update_weighs_less_with_age_and_more_with_deviation():
    staleness, deviation = np.array([0, 0, 1, 4, 4]), np.array([0.0, 0, 1, 1, 4])
    fresh, _, young, old, far = staleness_weights(staleness, deviation)
    assert fresh > young > old and far > old
    assert far / fresh == pytest.approx(0.65 / 5 + 0.35 * (1 - np.exp(-1) / 10))
    ours, _, _, _, theirs = staleness_weights(staleness, deviation, damping=1)
    assert theirs / ours == pytest.approx(0.65 / 5 + 0.35 * (1 - np.exp(-1)))  # of the paper


@pytest.mark.parametrize("rule", STALENESS_RULES)
def test_weights_sum_to_one_whatever_is_late(rule):
    for staleness in ([0, 0], [3, 1], [0, 2], []):
        weights = staleness_weights(np.array(staleness, dtype=int), np.zeros(len(staleness)), rule)
        assert weights.sum() == pytest.approx(1 if staleness else 0)


def test_rules_are_known():
    ages = np.array([0, 1, 2])
    np.testing.assert_allclose(staleness_weights(ages, ages, "equal"), 1 / 3)
    relative = staleness_weights(ages, ages, "adasgd")
    np.testing.assert_allclose(relative / relative[0], [1, 1 / 2, 1 / 3])
    with pytest.raises(UnknownName, match="refl"):
        staleness_weights(ages, ages, "old")
