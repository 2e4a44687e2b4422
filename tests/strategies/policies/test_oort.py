from __future__ import annotations

import numpy as np
import pytest

from tests.strategies.offers_of import clients, offer, report, rng
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.eafl import EAFL
from wattfed.strategies.policies.experience import statistical_utility
from wattfed.strategies.policies.oort import Oort, as_in_fedscale

EVER = {"exploration": 0.0, "least_exploration": 0.0}  # exploit whoever is known


def known(policy, losses, **changes):
    """A policy that has heard of all clients in round 1."""
    policy.select(Offers.of([]), 1, 1, rng())
    policy.observe([report(i, loss=loss, **changes) for i, loss in enumerate(losses)])
    return policy


def alike(n, **changes):
    return Offers.of([offer(i, **changes) for i in range(n)])


def test_utility_is_samples_times_the_root_mean_square_of_their_losses():
    assert statistical_utility(report(0, examples=50, loss=2.0, rms_loss=3.0)) == 150
    assert statistical_utility(report(0, examples=50, loss=2.0)) == 100  # not measured
    assert statistical_utility(report(0, loss=float("nan"))) == 0


def test_the_clients_of_highest_utility_are_exploited():
    policy = known(Oort(**EVER, percentile=100), [1, 1, 9, 1, 1, 8, 1, 7])
    assert clients(policy.select(alike(8), 3, 2, rng())) == [2, 5, 7]


def test_a_share_of_the_round_explores_and_the_share_decays_to_its_least():
    policy = Oort()
    offers, explored = alike(400), []
    for server_round in range(1, 41):
        before = policy._known.count.copy() if len(policy._known.count) else np.zeros(400)
        chosen = clients(policy.select(offers, 10, server_round, rng(server_round)))
        explored.append(int((before[chosen] == 0).sum()))
        policy.observe([report(client) for client in chosen])
    assert explored[0] == 10 and explored[1] == 10 - int(10 * (1 - 0.9 * 0.95**2))
    assert explored[-1] == 2


@pytest.mark.parametrize(("policy", "explored"), [(Oort, 1), (as_in_fedscale, 0)])
def test_the_artefact_explores_in_small_rounds_too_and_fedscale_does_not(policy, explored):
    policy = known(policy(exploration=0.2, least_exploration=0.2), [1.0] * 8)
    chosen = clients(policy.select(alike(400), 3, 2, rng()))
    assert sum(client >= 8 for client in chosen) == explored


def test_nothing_is_set_aside_for_exploration_once_everyone_was_used():
    policy = known(Oort(exploration=0.9), [1, 1, 9, 1, 1, 8, 1, 7])
    policy.select(alike(8), 3, 2, rng())
    assert len(policy.select(alike(8), 3, 3, rng())) == 3 == len(policy._exploited)


def test_slow_clients_lose_by_the_square_of_their_delay():
    policy = Oort(percentile=0)
    policy._duration_s = np.array([np.nan, 10, 40, 20])
    np.testing.assert_allclose(
        policy._slowness(np.array([10.0, 10, 20, 40])), [1, 1, 1 / 4, 1 / 16]
    )
    policy._percentile = 100
    assert (policy._slowness(np.array([1.0, 50.0])) == 1).all()


def test_the_preferred_duration_is_one_of_all_who_ever_made_an_offer():
    policy = Oort(**EVER, percentile=50)
    slow = [offer(i, fast_s=40.0) for i in range(3, 6)]
    policy.select(Offers.of([offer(i, fast_s=10.0) for i in range(3)] + slow), 1, 1, rng())
    policy.select(Offers.of(slow[:1]), 1, 2, rng())
    assert policy._slowness(policy._duration_s[:1]) == 1
    policy._percentile = 30
    assert policy._slowness(policy._duration_s[3:4]) < 0.1


def test_an_outlier_of_utility_is_clipped():
    policy = known(Oort(clip=0.5), [1, 2, 3, 4, 1000])
    score = policy._scores(alike(5), np.arange(5), 2)
    assert score[2] == score[3] == score[4] > score[1] > score[0]


def test_who_was_not_used_for_long_gains_temporal_uncertainty():
    policy = known(Oort(**EVER), [1, 1, 1])
    policy._round = 50
    policy.observe([report(1)])
    score = policy._scores(alike(3), np.arange(3), 51)
    assert score[0] == score[2] > score[1]
    assert score[0] - score[1] == pytest.approx(np.sqrt(0.1 * np.log(51)) * (1 - 1 / 50**0.5))


def test_exploration_prefers_the_fast_in_the_paper_and_the_rich_in_fedscale():
    fast_or_rich = Offers.of(
        [offer(i, fast_s=1.0, minibatches=2) for i in range(5)]
        + [offer(i, fast_s=1.0, minibatches=60) for i in range(5, 10)]
    )
    paper = Oort(window=1.0).select(fast_or_rich, 5, 1, rng())
    fedscale = as_in_fedscale()
    fedscale.window, fedscale._percentile = 1.0, 100.0
    assert clients(paper) == [0, 1, 2, 3, 4]
    assert clients(fedscale.select(fast_or_rich, 5, 1, rng())) == [5, 6, 7, 8, 9]


def test_k_clients_are_selected_when_none_is_left_to_explore():
    policy = known(Oort(), [1.0] * 6)  # other implementations return only the exploited share
    assert len(policy.select(alike(6), 5, 2, rng())) == 5


def test_clients_without_any_utility_do_not_stop_the_draw():
    policy = known(Oort(**EVER), [0.0] * 8)  # rng.choice(p=...) fails on too few positive weights
    assert len(policy.select(alike(8), 4, 2, rng())) == 4


def test_the_black_list_holds_the_most_used_and_at_most_a_share():
    policy = Oort(**EVER, blacklist_rounds=2, blacklist_share=0.25)
    for _ in range(4):
        known(policy, [5, 4, 3, 1, 1, 1, 1, 1])
    policy.observe([report(0), report(1)])
    assert set(range(8)) - set(policy._admitted(alike(8), np.arange(8)).tolist()) == {0, 1}


def test_the_pacer_looks_at_the_utility_that_the_exploited_report_of_the_round():
    policy = known(Oort(**EVER, percentile=100), [1, 1, 9, 1, 8])
    chosen = clients(policy.select(alike(5), 2, 2, rng()))
    assert chosen == [2, 4]
    policy.observe([report(2, examples=10, loss=3.0), report(4, loss=2.0, used=False)])
    assert policy._harvest == [0.0, 30.0]  # nobody was exploited in the first


@pytest.mark.parametrize(
    ("pacer", "harvest", "moved"),
    [
        ("rising", [4, 4, 2, 2], 5),
        ("rising", [2, 2, 4, 4], 0),
        ("both-ways", [4, 4, 4, 4.1], 5),
        ("both-ways", [4, 4, 2, 2], 0),
        ("both-ways", [1, 1, 9, 9], -5),
    ],
)
def test_the_pacer_moves_the_preferred_duration_once_a_window(pacer, harvest, moved):
    policy = Oort(pacer=pacer, pacer_step=2, percentile=30.0)
    policy._harvest = list(map(float, harvest))
    for server_round in (3, 4, 5):
        policy._pace(server_round)
    assert policy._percentile == 30 + moved


def test_late_updates_are_ignored_in_the_paper_and_get_the_mean_in_the_artefact():
    reports = [report(0, loss=1.0), report(1, loss=3.0), report(2, loss=9.0, used=False)]
    paper, artefact = Oort(), Oort(losers="mean")
    for policy in (paper, artefact):
        policy.select(alike(3), 3, 1, rng())
        policy.observe(reports)
    assert np.isnan(paper._known.utility[2]) and paper._known.count[2] == 0
    assert artefact._known.utility[2] == artefact._known.utility[:2].mean()


def batteries(charges, capacity_j=10_000.0, **changes):
    return Offers.of(
        [
            offer(i, battery_j=charge * capacity_j, battery_capacity_j=capacity_j, **changes)
            for i, charge in enumerate(charges)
        ]
    )


def test_eafl_prefers_the_charged_of_equal_clients():
    policy = known(EAFL(**EVER), [1.0] * 6)
    chosen = policy.select(batteries([0.2, 0.9, 0.3, 0.8, 0.1, 0.7]), 3, 2, rng())
    assert clients(chosen) == [1, 3, 5]


def test_eafl_rewards_the_charge_that_is_left_after_the_round():
    policy = known(EAFL(f=0.25), [1.0, 1.0])
    offers = batteries([0.5, 0.5], fast_j=100.0)
    reward = policy._reward(np.array([1.0, 1.0]), offers, np.arange(2))  # equal: no division by 0
    np.testing.assert_allclose(reward, 0.75 * (5000 - 1000 - 1) / 10_000)


def test_eafl_weighs_utility_by_f():
    policy = known(EAFL(f=1.0, **EVER, percentile=100), [1, 9, 1, 8])
    assert clients(policy.select(batteries([0.9, 0.1, 0.9, 0.1]), 2, 2, rng())) == [1, 3]


def test_eafl_asks_nobody_whose_battery_the_round_would_empty():
    chosen = EAFL().select(batteries([0.01, 0.9, 0.02]), 3, 1, rng())
    assert clients(chosen) == [1]
