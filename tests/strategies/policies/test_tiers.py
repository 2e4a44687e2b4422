from __future__ import annotations

import numpy as np
import pytest

from tests.strategies.offers_of import clients, offer, report, rng
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.round_robin_tiers import RoundRobinTiers
from wattfed.strategies.policies.speed_tiers import speed_tiers
from wattfed.strategies.policies.tifl import TiFL, tier_chances
from wattfed.strategies.target import Target

ALL = np.ones(4, dtype=bool)


def of_rising_slowness(n):
    return Offers.of([offer(i, fast_s=1 + i / 4) for i in range(n)])


def tier_of(chosen, size):
    (tier,) = {client // size for client in clients(chosen)}
    return tier


def test_tiers_are_equal_parts_by_speed():
    assert speed_tiers(np.array([5.0, 1, 4, 2, 3, 6]), 3).tolist() == [2, 0, 1, 0, 1, 2]
    assert np.bincount(speed_tiers(np.ones(11), 3)).tolist() == [4, 4, 3]
    assert speed_tiers(np.zeros(0), 3).tolist() == []


def test_every_tier_has_its_turn():
    policy = RoundRobinTiers(tiers=3)
    turns = [tier_of(policy.select(of_rising_slowness(12), 3, r, rng(r)), 4) for r in range(1, 7)]
    assert turns == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("policy", [RoundRobinTiers(), TiFL()], ids=str)
def test_a_small_fleet_has_fewer_tiers_so_that_each_fills_a_round(policy):
    for server_round in range(1, 8):
        assert len(policy.select(of_rising_slowness(9), 4, server_round, rng())) == 4


def test_tifl_selects_within_one_tier():
    policy = TiFL(tiers=3)
    tiers = {tier_of(policy.select(of_rising_slowness(12), 3, r, rng(r)), 4) for r in range(1, 20)}
    assert tiers == {0, 1, 2}


def test_the_worst_tier_gets_the_best_chance_and_the_best_none():
    accuracy = np.array([0.9, 0.2, 0.5, 0.4])
    np.testing.assert_allclose(tier_chances(accuracy, ALL), np.array([0, 3, 1, 2]) / 6)
    np.testing.assert_allclose(tier_chances(accuracy, ALL, True), np.array([1, 4, 2, 3]) / 10)


def test_with_two_tiers_the_worst_gets_all_and_one_tier_is_no_division_by_zero():
    assert tier_chances(np.array([0.9, 0.2]), ALL[:2]).tolist() == [0, 1]
    assert tier_chances(np.array([0.9]), ALL[:1]).tolist() == [1]
    assert tier_chances(np.array([0.9, 0.2]), np.array([True, False])).tolist() == [1, 0]


def test_chances_change_when_the_tier_in_use_stops_improving():
    policy = TiFL(tiers=2, interval=2)
    offers = of_rising_slowness(8)
    for server_round in range(1, 9):  # the slow half learns worse, and nobody improves
        chosen = clients(policy.select(offers, 2, server_round, rng(server_round)))
        policy.observe([report(c, loss=2.0 if c >= 4 else 0.1) for c in chosen])
    assert policy._chance.tolist() == [0, 1]


def test_tiers_are_told_apart_by_losses_of_any_size():
    """A regression's losses are far beyond those that would imply an accuracy."""
    policy = TiFL(tiers=2, interval=2)
    offers = of_rising_slowness(8)
    for server_round in range(1, 9):  # the fast half learns worse, and nobody improves
        chosen = clients(policy.select(offers, 2, server_round, rng(server_round)))
        policy.observe([report(c, loss=5e3 if c < 4 else 2e3) for c in chosen])
    assert policy._chance.tolist() == [1, 0]


def test_chances_follow_the_direction_of_the_metric():
    losses = np.array([0.9, np.nan, 0.5, 0.4])
    chances = tier_chances(losses, ALL, target=Target("loss", "min"))
    np.testing.assert_allclose(chances, np.array([2, 3, 1, 0]) / 6)


def test_chances_stay_while_the_tier_in_use_improves():
    policy = TiFL(tiers=2, interval=2)
    for server_round in range(1, 9):
        policy.select(of_rising_slowness(8), 2, server_round, rng(server_round))
        policy.observe([report(c, loss=3 - server_round / 4) for c in range(8)])
    assert policy._chance.tolist() == [0.5, 0.5]


def test_slow_tiers_are_drawn_as_often_as_their_credits_allow():
    policy, offers = TiFL(tiers=4, credits=2), of_rising_slowness(12)
    drawn = [tier_of(policy.select(offers, 3, r, rng(r)), 3) for r in range(1, 30)]
    assert np.bincount(drawn).tolist() == [23, 2, 2, 2]


def test_slow_tiers_share_the_rounds_of_a_run():
    policy, offers = TiFL(tiers=4, rounds=30), of_rising_slowness(12)
    policy.select(offers, 3, 1, rng())
    assert policy._credits.sum() == np.inf and policy._credits[1:].sum() in (23, 24)  # one drawn


def test_a_tier_is_drawn_even_if_all_with_a_chance_have_no_credits():
    policy, offers = TiFL(tiers=2, credits=1), of_rising_slowness(4)
    policy.select(offers, 2, 1, rng())
    policy._chance, policy._credits = np.array([0.0, 1.0]), np.array([np.inf, 0.0])
    assert clients(policy.select(offers, 2, 2, rng())) == [0, 1]  # others draw for ever


def test_who_is_too_slow_is_dropped():
    assert clients(TiFL(slowest_s=15.0).select(of_rising_slowness(12), 9, 1, rng())) == [0, 1]
