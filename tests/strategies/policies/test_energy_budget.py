from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies.offers_of import clients, offer, report, rng
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.energy_budget import EnergyBudget, most_utility_within


def cost_j(offers, chosen, deadline_s):
    """What clients cost that are to finish by a deadline at their cheapest in time."""
    round_s = offers.time_s[chosen] + offers.transfer_s[chosen, None]
    wait_s = deadline_s - offers.time_s[chosen]
    total = offers.energy_j[chosen] + offers.idle_power_w[chosen, None] * wait_s
    return np.where(round_s <= deadline_s + 1e-9, total, np.inf).min(axis=1).sum()


@given(st.integers(0, 2**16), st.integers(1, 4))
def test_the_most_utility_that_a_budget_buys(seed, count):
    generator = rng(seed)
    utility, cost = generator.uniform(1, 10, 8), generator.uniform(1, 10, 8)
    budget = np.sort(cost)[:count].sum() * generator.uniform(1.01, 2)
    sets = [list(s) for s in combinations(range(8), count) if cost[list(s)].sum() <= budget]
    best = max(utility[s].sum() for s in sets)
    chosen = most_utility_within(utility, cost, budget, count)
    assert len(chosen) == count and cost[chosen].sum() <= budget * (1 + 1e-6)
    assert utility[chosen].sum() >= 0.998 * best


@pytest.mark.parametrize("budget_j", [100.0, 450.0, 900.0, 5000.0])
def test_predicted_costs_stay_within_the_budget_of_a_round(budget_j):
    offers = Offers.of([offer(i, fast_s=1 + i / 4, fast_j=10.0 + i) for i in range(12)])
    assignments = EnergyBudget(round_energy_j=budget_j).select(offers, 5, 1, rng())
    chosen = clients(assignments)
    assert len(chosen) <= 5 and (chosen or budget_j == 100.0)
    if chosen:
        finish_s = assignments[0].deadline_s * 0.9
        assert cost_j(offers, chosen, finish_s) <= budget_j * (1 + 1e-9)


def test_the_shortest_round_that_the_budget_allows_is_taken():
    offers = Offers.of([offer(i) for i in range(6)])
    tight, ample = EnergyBudget(round_energy_j=520.0), EnergyBudget(round_energy_j=5000.0)
    (slow_s,) = {a.deadline_s for a in tight.select(offers, 3, 1, rng())}
    (fast_s,) = {a.deadline_s for a in ample.select(offers, 3, 1, rng())}
    assert fast_s * 0.9 == pytest.approx(10.7) and slow_s * 0.9 == pytest.approx(20.7)


def test_what_the_run_has_left_is_shared_among_its_rounds():
    policy = EnergyBudget(total_energy_j=1000.0, rounds=2)
    offers = Offers.of([offer(i) for i in range(6)])
    assert len(policy.select(offers, 5, 1, rng())) == 3  # 161 J each
    policy.observe([report(i, energy_j=450.0) for i in range(2)])
    assert len(policy.select(offers, 5, 2, rng())) == 0


def test_a_run_that_goes_on_for_more_rounds_shares_what_it_has_left_among_them():
    short, longer = (EnergyBudget(total_energy_j=1000.0, rounds=rounds) for rounds in (1, 3))
    offers = Offers.of([offer(i) for i in range(6)])
    short.select(offers, 1, 1, rng())
    longer.restore(short.state())
    assert len(longer.select(offers, 5, 2, rng())) == 3  # of 161 J each


def test_participants_are_left_out_until_others_have_caught_up():
    policy = EnergyBudget()
    offers = Offers.of([offer(i) for i in range(20)])
    for _ in range(9):
        policy.observe([report(0), report(1)])
    seen = [clients(policy.select(offers, 5, r, rng(r))) for r in range(1, 4)]
    for chosen in seen:
        assert not {0, 1} & set(chosen)


def test_of_the_participants_those_of_low_utility_are_left_out():
    policy = EnergyBudget(left_out=0.5, alpha=0.0)
    told = [report(i, loss=1.0 + i) for i in range(4)]
    policy.observe([*told, report(4, loss=0.0, used=False)])
    offers = Offers.of([offer(i) for i in range(20)])
    policy.select(offers, 5, 1, rng())
    assert policy._left_out.tolist() == [0, 1]


def test_clients_of_high_utility_are_preferred_at_equal_cost():
    policy = EnergyBudget(alpha=1e9)
    policy.observe([report(i, loss=9.0 if i in (2, 5) else 1.0) for i in range(8)])
    offers = Offers.of([offer(i) for i in range(8)])
    assert clients(policy.select(offers, 2, 2, rng())) == [2, 5]


def test_at_maxn_costs_are_those_of_maxn():
    offers = Offers.of([offer(i) for i in range(6)])  # 300 J at MAXN, 200 J at the front's fastest
    assert len(EnergyBudget("maxn", round_energy_j=650.0).select(offers, 3, 1, rng())) == 2
    assert len(EnergyBudget("fastest", round_energy_j=650.0).select(offers, 3, 1, rng())) == 3
