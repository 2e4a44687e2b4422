from __future__ import annotations

import numpy as np

from tests.strategies.offers_of import clients, offer, report, rng
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.power_of_choice import PowerOfChoice


def alike(n):
    return Offers.of([offer(i) for i in range(n)])


def test_of_all_candidates_those_of_highest_loss_are_taken():
    policy = PowerOfChoice(d=8)
    policy.observe([report(i, loss=float(i % 5)) for i in range(8)])
    assert clients(policy.select(alike(8), 3, 1, rng())) in ([3, 4, 7], [2, 3, 4])


def test_who_was_never_asked_comes_before_any_loss():
    policy = PowerOfChoice(d=8)
    policy.observe([report(i, loss=100.0) for i in range(6)])
    assert set(clients(policy.select(alike(8), 3, 1, rng()))) >= {6, 7}


def test_chance_decides_among_those_never_asked():
    first = {tuple(clients(PowerOfChoice(d=8).select(alike(8), 2, 1, rng(i)))) for i in range(20)}
    assert len(first) > 5


def test_candidates_are_drawn_by_their_examples():
    offers = Offers.of([offer(i, minibatches=50 if i == 3 else 1) for i in range(10)])
    asked = [3 in clients(PowerOfChoice(d=1).select(offers, 1, 1, rng(i))) for i in range(300)]
    assert 0.78 < np.mean(asked) < 0.91  # 50 / 59


def test_fewer_candidates_than_k_are_never_drawn():
    assert len(PowerOfChoice(d=1).select(alike(8), 4, 1, rng())) == 4
