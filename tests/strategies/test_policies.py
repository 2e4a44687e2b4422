from __future__ import annotations

import numpy as np
import pytest

from powerctl.errors import InvalidInput, UnknownName
from powerctl.rounds import TIME_RESERVE
from strategies.all_clients import AllClients
from strategies.catalogue import aggregation_names, make_aggregation, make_policy, policy_names
from strategies.fedcs import FedCS
from strategies.offers import Offers
from strategies.pace import Pace
from strategies.random_selection import RandomSelection
from strategies.run_config import RunConfig
from tests.strategies.offers_of import offer, report

POLICIES = [RandomSelection(), RandomSelection("fastest"), AllClients(), FedCS(), Pace()]


def rng(seed=0):
    return np.random.default_rng(seed)


def clients(assignments):
    return [assignment.client for assignment in assignments]


def mixed_offers():
    """Twelve clients of rising slowness; the last two cannot take part."""
    able = [offer(i, fast_s=1 + i / 4) for i in range(10)]
    return Offers.of([*able, offer(10, decline="empty"), offer(11, decline="hot")])


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_only_able_clients_are_selected_each_once_and_with_full_work(policy):
    assignments = policy.select(mixed_offers(), 4, 1, rng())
    assert assignments and max(clients(assignments)) < 10
    assert len(set(clients(assignments))) == len(assignments)
    assert {a.minibatches for a in assignments} == {10}
    if not isinstance(policy, AllClients):
        assert len(assignments) <= 4


@pytest.mark.parametrize("name", policy_names())
def test_the_same_seed_selects_the_same(name):
    def selections(seed):
        policy = make_policy(RunConfig(strategy=name))
        chosen = []
        for server_round in range(1, 5):
            chosen.append(policy.select(mixed_offers(), 4, server_round, rng(seed)))
            policy.observe([report(a.client, loss=1 / (1 + a.client)) for a in chosen[-1]])
        return chosen

    assert selections(3) == selections(3)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_nobody_offers_or_nobody_can(policy):
    assert policy.select(Offers.of([]), 3, 1, rng()) == []
    assert policy.select(Offers.of([offer(0, decline="no")]), 3, 1, rng()) == []


def test_random_reaches_everyone_and_at_maxn_also_those_over_their_limits():
    seen = set()
    for seed in range(60):
        seen.update(clients(RandomSelection("maxn").select(mixed_offers(), 3, 1, rng(seed))))
    assert seen == set(range(12))


def test_slack_gives_everyone_the_time_of_the_slowest_selected():
    assignments = RandomSelection("slack").select(mixed_offers(), 4, 1, rng())
    slowest_s = 0.5 + 10 * (1 + max(clients(assignments)) / 4)
    assert {a.deadline_s for a in assignments} == {slowest_s / (1 - TIME_RESERVE)}
    assert all(
        np.isinf(a.deadline_s) for a in RandomSelection("maxn").select(mixed_offers(), 4, 1, rng())
    )


def test_fedcs_takes_the_fastest_that_meet_its_deadline():
    assert clients(FedCS(deadline_s=15.0).select(mixed_offers(), 9, 1, rng())) == [0, 1]
    assert clients(FedCS(deadline_s=60.0).select(mixed_offers(), 3, 1, rng())) == [0, 1, 2]
    assert FedCS(deadline_s=5.0).select(mixed_offers(), 3, 1, rng()) == []


def test_pace_never_asks_for_more_than_an_allowance_pays():
    rich = [offer(i, fast_s=5.0) for i in range(3)]
    poor = [offer(i, allowance_j=100.0) for i in range(3, 8)]
    assignments = Pace().select(Offers.of(rich + poor), 3, 1, rng())
    assert clients(assignments) == [0, 1, 2]


def test_pace_sets_a_deadline_that_every_selected_client_can_meet():
    offers = mixed_offers()
    assignments = Pace().select(offers, 5, 1, rng())
    (deadline_s,) = {a.deadline_s for a in assignments}
    needed_s = offers.fastest_round_s("slack")[clients(assignments)]
    assert np.all(needed_s <= deadline_s * (1 - TIME_RESERVE) + 1e-9)


def test_pace_prefers_the_frugal_of_equal_clients():
    frugal = [offer(i, fast_j=10.0) for i in range(0, 10, 2)]
    wasteful = [offer(i, fast_j=30.0) for i in range(1, 10, 2)]
    assignments = Pace().select(Offers.of(frugal + wasteful), 5, 1, rng())
    assert clients(assignments) == [0, 2, 4, 6, 8]


def test_pace_gives_a_client_that_still_errs_its_turn():
    policy = Pace()
    offers = Offers.of([offer(i) for i in range(8)])
    policy.select(offers, 4, 1, rng())
    policy.observe([report(i, loss=5.0 if i == 6 else 0.01) for i in range(8)])
    assert 6 in clients(policy.select(offers, 4, 2, rng()))


def test_pace_reaches_everyone_in_time():
    policy, seen = Pace(), set()
    offers = Offers.of([offer(i, fast_s=1 + i / 10) for i in range(20)])
    for server_round in range(1, 31):
        chosen = clients(policy.select(offers, 5, server_round, rng(server_round)))
        policy.observe([report(client, loss=1.0) for client in chosen])
        seen.update(chosen)
    assert seen == set(range(20))


def test_pace_selects_from_ten_thousand_clients():
    offers = Offers.of([offer(i, fast_s=1 + (i % 97) / 10) for i in range(10_000)])
    assert 80 <= len(Pace().select(offers, 100, 1, rng())) <= 100


def test_two_nodes_cannot_offer_as_one_client():
    with pytest.raises(InvalidInput, match="partition-id"):
        Offers.of([offer(1), offer(1)])


def test_names_of_policies_and_aggregations_are_checked():
    with pytest.raises(UnknownName, match="did you mean 'fedcs'"):
        make_policy(RunConfig(strategy="fedsc"))
    with pytest.raises(UnknownName, match="fedavg"):
        make_aggregation(RunConfig(aggregation="fedmagic"))
    assert [make_aggregation(RunConfig(aggregation=name)) for name in aggregation_names()]
