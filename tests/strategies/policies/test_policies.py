from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerctl.boards import load_board
from powerctl.errors import InvalidInput, UnknownName
from powerctl.fulcrum.plans import SWITCH_S, TIME_RESERVE, FixedMode
from tests.strategies.offers_of import clients, mixed_offers, offer, report, rng
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.catalogue import POLICIES, make_policy, split_power
from wattfed.strategies.policies.fedcs import FedCS
from wattfed.strategies.policies.random_selection import RandomSelection
from wattfed.strategies.protocol import POWER_POLICIES
from wattfed.strategies.round.aggregation import AGGREGATIONS, make_aggregation
from wattfed.strategies.run_config import RunConfig

POLICIES = POLICIES.names()
FEWER = settings(max_examples=settings.default.max_examples // 2)  # of each policy


def policy_of(name, power="slack"):
    return make_policy(RunConfig(strategy=name, power=power))


@st.composite
def any_offers(draw):
    """A few clients of any speed, energy, limits, data, battery and availability."""
    n = draw(st.integers(0, 12))
    column = st.floats(0.01, 100)
    maybe = st.one_of(st.just(float("inf")), st.floats(0, 1e4))
    numbers = draw(st.lists(st.integers(0, 60), min_size=n, max_size=n, unique=True))
    return [
        offer(
            number,
            fast_s=draw(column),
            fast_j=draw(column),
            minibatches=draw(st.integers(1, 20)),
            allowance_j=draw(st.floats(0, 5e3)),
            decline=draw(st.sampled_from(["", "", "hot"])),
            label_counts=tuple(draw(st.sampled_from([(), (5, 0), (0, 5, 1), (0, 0, 0)]))),
            battery_j=draw(maybe),
            battery_capacity_j=draw(st.sampled_from([float("inf"), 1e4])),
            available_s=draw(maybe),
        )
        for number in numbers
    ]


@pytest.mark.parametrize("name", POLICIES)
@FEWER
@given(any_offers(), st.sampled_from(POWER_POLICIES), st.integers(1, 8), st.integers(0, 2**16))
def test_at_most_k_able_clients_each_once_and_with_full_work(name, offers, power, k, seed):
    policy, generator = policy_of(name, power), rng(seed)
    able = {o.client: o.minibatches for o in offers if power == "maxn" or not o.decline}
    for server_round in range(1, 5):
        assignments = policy.select(Offers.of(offers), k, server_round, generator)
        chosen = clients(assignments)
        assert {a.client: a.minibatches for a in assignments}.items() <= able.items()
        assert len(set(chosen)) == len(chosen) <= (len(able) if name == "all" else k)
        assert all(a.deadline_s > 0 for a in assignments)
        policy.observe([report(c, loss=generator.gamma(1)) for c in chosen[1:]])


@FEWER
@given(offers=any_offers(), seed=st.integers(0, 2**16))
@pytest.mark.parametrize("name", POLICIES)
def test_the_same_seed_selects_the_same(name, offers, seed):
    def selections():
        policy, chosen = policy_of(name), []
        for server_round in range(1, 4):
            chosen.append(policy.select(Offers.of(offers), 3, server_round, rng(seed)))
            policy.observe([report(a.client, loss=1 / (1 + a.client)) for a in chosen[-1]])
        return chosen

    assert selections() == selections()


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_goes_on_selecting_whatever_clients_report(name):
    policy = policy_of(name)
    bad = {"loss": float("nan"), "minibatches": 0, "used": False, "staleness": 2}
    for server_round in range(1, 60):
        chosen = clients(policy.select(mixed_offers(), 4, server_round, rng(server_round)))
        assert chosen, server_round
        changes = [{}, *({key: value} for key, value in bad.items())]
        policy.observe([report(c, **changes[c % 5]) for c in chosen if c != 3])


@pytest.mark.parametrize("name", POLICIES)
def test_k_clients_are_selected_where_nothing_forbids_it(name):
    offers = Offers.of([offer(i) for i in range(12)])
    policy, wanted = policy_of(name), {"all": (12,), "pace": range(2, 6)}.get(name, (5,))
    if name == "fedcs-serial":
        wanted = (1,)  # the uploads of more do not fit into the median round
    for server_round in range(1, 20):
        assignments = policy.select(offers, 5, server_round, rng(server_round))
        assert len(assignments) in wanted
        policy.observe([report(client) for client in clients(assignments)])


@pytest.mark.parametrize("name", POLICIES)
def test_nobody_offers_or_nobody_can(name):
    assert policy_of(name).select(Offers.of([]), 3, 1, rng()) == []
    assert policy_of(name).select(Offers.of([offer(0, decline="no")]), 3, 1, rng()) == []


@pytest.mark.parametrize("name", [n for n in POLICIES if n != "pace"])
def test_every_baseline_runs_with_any_power_policy(name):
    for power in POWER_POLICIES:
        assignments = policy_of(name, power).select(mixed_offers(), 4, 1, rng())
        assert assignments and {a.power for a in assignments} == {power}


def test_random_reaches_everyone_and_at_maxn_also_those_over_their_limits():
    seen = set()
    for seed in range(60):
        seen.update(clients(RandomSelection("maxn").select(mixed_offers(), 3, 1, rng(seed))))
    assert seen == set(range(12))


def test_slack_gives_everyone_the_time_of_the_slowest_selected():
    assignments = RandomSelection("slack").select(mixed_offers(), 4, 1, rng())
    slowest_s = 0.5 + SWITCH_S + 10 * (1 + max(clients(assignments)) / 4)
    assert {a.deadline_s for a in assignments} == {slowest_s / (1 - TIME_RESERVE)}
    assert all(
        np.isinf(a.deadline_s) for a in RandomSelection("maxn").select(mixed_offers(), 4, 1, rng())
    )


def test_fedcs_takes_the_fastest_that_meet_its_deadline():
    assert clients(FedCS(deadline_s=15.0).select(mixed_offers(), 9, 1, rng())) == [0, 1]
    everyone = FedCS(deadline_s=60.0, poll=10)
    assert clients(everyone.select(mixed_offers(), 3, 1, rng())) == [0, 1, 2]
    assert FedCS(deadline_s=5.0).select(mixed_offers(), 3, 1, rng()) == []


def test_a_change_of_mode_is_part_of_a_round_but_for_maxn():
    maxn = load_board("orin-nano").space.maximum
    slowed, as_maxn = offer(0), offer(1, maxn=FixedMode(maxn, 1.0, 30.0))
    offers = Offers.of([slowed, as_maxn])
    time_s, energy_j = offers.choices("slack", np.arange(2))
    assert time_s == pytest.approx(np.array([[10.2, 20.2], [10.0, 20.2]]))
    assert energy_j == pytest.approx(np.array([[200.4, 140.4], [200.0, 140.4]]))
    assert offers.fastest_round_s("slack") == pytest.approx([10.7, 10.5])


def test_rounds_at_the_preset_are_as_long_and_cost_what_the_preset_takes():
    offers = Offers.of([offer(0), offer(1, fast_s=2.0), offer(2, allowance_j=220.0)])
    assert offers.fastest_round_s("preset") == pytest.approx([12.7, 24.7, 12.7])
    assert offers.fastest_energy_j("preset") == pytest.approx([220.0] * 3)
    time_s, energy_j = offers.choices("preset", np.arange(3))
    assert time_s == pytest.approx(np.array([[12.2], [24.2], [np.inf]]))  # entering costs 0.4 J
    assert energy_j == pytest.approx(np.array([[220.4], [220.4], [np.inf]]))
    fedcs = FedCS(15.0, "preset")
    assert clients(fedcs.select(offers, 3, 1, rng())) == [0, 2]


def test_two_nodes_cannot_offer_as_one_client():
    with pytest.raises(InvalidInput, match="partition-id"):
        Offers.of([offer(1), offer(1)])


def test_what_an_offer_does_not_tell_is_neutral():
    offers = Offers.of([offer(0), offer(1, label_counts=(3.0, 1.0), battery_j=5.0)])
    assert offers.label_counts.tolist() == [[0, 0], [3, 1]]
    assert offers.battery_j.tolist() == [np.inf, 5.0]
    assert np.isinf(offers.available_s).all()


def test_parameters_of_policies_are_set_by_text():
    assert make_policy(RunConfig(strategy="oort( clip = 0.5,blacklist_rounds=3)")).clip == 0.5
    assert make_policy(RunConfig(strategy="fedcs(parallel_upload=false)")).parallel_upload is False
    assert make_policy(RunConfig(strategy="oort-fedscale")).cut_off == 0.05
    assert make_policy(RunConfig(strategy="tifl(interval=7)")).interval == 7
    assert make_policy(RunConfig(strategy="energy-budget(rounds=7)", rounds=9)).rounds == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oort(clib=0.5)", "unknown parameter of oort 'clib': did you mean 'clip'"),
        ("oort(clip=much)", "'much' is no float"),
        ("oort(clip)", "write NAME or NAME"),
        ("oort(clip=1", "write NAME or NAME"),
        ("oort(pacer=slow)", "unknown pacer 'slow'"),
        ("fedcs(parallel_upload=2)", "'2' is no bool"),
    ],
)
def test_parameters_that_cannot_be_read_are_named(text, message):
    with pytest.raises((InvalidInput, UnknownName), match=message):
        make_policy(RunConfig(strategy=text))


def test_a_strategy_and_its_power_are_told_apart():
    assert split_power("random:maxn") == ("random", "maxn")
    assert split_power("oort(clip=0.5)") == ("oort(clip=0.5)", "")
    assert split_power("random:maxx") == ("random", "maxx")  # which the run configuration refuses
    assert split_power("my.mod:Mine") == ("my.mod:Mine", "")
    assert split_power("my.py:Mine(least=2):slack") == ("my.py:Mine(least=2)", "slack")


def test_aggregations_take_parameters_but_not_those_of_the_run():
    assert make_aggregation(RunConfig(aggregation="fedadam(eta=0.5)")).strategy.eta == 0.5
    with pytest.raises(UnknownName, match="unknown parameter of krum 'hostile'"):
        make_aggregation(RunConfig(aggregation="krum(hostile=2)"))
    with pytest.raises(InvalidInput, match="withstands 1 hostile clients among at least 7"):
        make_aggregation(RunConfig(aggregation="bulyan(server_learning_rate=1)"))


def test_the_folder_of_a_run_is_one_folder_whatever_it_names():
    config = RunConfig(strategy="my/policies.py:Mine", task="/home/me/task.py:Mine")
    assert config.run_name == "home-me-task.py:Mine-my-policies.py:Mine-slack-seed0"


def test_names_of_policies_and_aggregations_are_checked():
    with pytest.raises(UnknownName, match="did you mean 'fedcs'"):
        make_policy(RunConfig(strategy="fedsc"))
    with pytest.raises(UnknownName, match="fedavg"):
        make_aggregation(RunConfig(aggregation="fedmagic"))
    assert [
        make_aggregation(RunConfig(aggregation=name, per_round=7)) for name in AGGREGATIONS.names()
    ]
