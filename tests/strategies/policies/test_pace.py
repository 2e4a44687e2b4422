"""pace: whom it chooses, and what it learns of them from their updates."""

from __future__ import annotations

import numpy as np
import pytest

from powerctl.fulcrum.plans import TIME_RESERVE
from tests.strategies.offers_of import clients, mixed_offers, offer, report, rng
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies import pace
from wattfed.strategies.policies.experience import Delivery
from wattfed.strategies.policies.pace import Learned, Pace, SetSearch
from wattfed.strategies.summaries import PLACES, UpdateSummary


def direction(number, along=0):
    """A unit sketch of its own for each number; `along` of it lies in the same place for all."""
    sketch = np.zeros(PLACES)
    sketch[number] = np.sqrt(1 - along**2)
    sketch[-1] = along
    return sketch


def told(policy, sketches, **changes):
    """The policy is told of updates of norm 1 that lead along some sketches, by client."""
    reports = [report(client, **changes) for client in sketches]
    summaries = {client: UpdateSummary(1.0, sketch) for client, sketch in sketches.items()}
    policy.observe(reports, summaries)
    return policy


class Bowl:
    """A loss of curvature 1 in each of 256 parameters, of which every client has a minimum apart.

    An update goes `step` of the way to the client's own minimum, and elsewhere by chance.
    """

    def __init__(self, step, apart, n=30):
        self._rng = np.random.default_rng(1)
        self._step, self._apart = step, apart
        self._model = np.ones(PLACES) * 4 / np.sqrt(PLACES)
        self._own = self._draws(n) * apart

    def _draws(self, n):
        return self._rng.standard_normal((n, PLACES)) / np.sqrt(PLACES)

    def train(self, learned, asked):
        noise = self._draws(len(asked)) * self._apart
        updates = self._step * (self._own[asked] + noise - self._model)
        self._model = self._model + updates.mean(axis=0)
        norms = np.linalg.norm(updates, axis=1)
        learned.hear(np.array(asked), np.ones(len(asked)), norms, updates)


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0, 1.6])
@pytest.mark.parametrize("apart", [0.5, 3.0])
def test_how_far_a_step_reaches_is_learned_though_clients_pull_their_own_way(step, apart):
    bowl, learned, draws = Bowl(step, apart), Learned(), rng()
    for _ in range(30):
        bowl.train(learned, draws.choice(30, 6, replace=False))
    assert learned.reach == pytest.approx(step / 2, abs=0.08)


def test_the_longer_steps_reach_and_the_more_updates_differ_the_more_clients_are_asked():
    offers, numbers = Offers.of([offer(i) for i in range(30)]), {}
    for step, apart in ((0.05, 0.5), (0.3, 0.5), (0.3, 8.0)):
        policy, bowl = Pace(price=50), Bowl(step, apart)
        for _ in range(6):
            bowl.train(policy._learned, range(30))
        numbers[step, apart] = len(policy.select(offers, 20, 7, rng()))
    assert numbers[0.05, 0.5] < numbers[0.3, 0.5] < numbers[0.3, 8.0]


def test_the_mean_cosine_is_that_of_the_updates_whatever_their_length_and_share():
    sketches = np.array([direction(i, 0.5) for i in range(12)])
    norms, examples = np.linspace(1, 3, 12), np.linspace(5, 50, 12)
    learned = Learned()
    for _ in range(60):
        learned.hear(np.arange(12), examples, norms, norms[:, None] * sketches)
    assert learned.rho == pytest.approx(0.25, abs=0.01)


def test_how_much_of_a_pull_is_found_again_is_learned():
    steady, fickle = Learned(), Learned()
    generator = np.random.default_rng(0)
    for _ in range(40):
        same = np.array([direction(i, 0.3) for i in range(6)])
        other = generator.standard_normal((6, PLACES)) / 16
        for learned, sketches in ((steady, same), (fickle, other)):
            learned.hear(np.arange(6), np.ones(6), np.ones(6), sketches)
    assert steady.kept > 0.9 > 0.2 > fickle.kept


def test_a_set_is_chosen_that_pulls_as_all_would():
    policy = Pace(at_least=99, price=0)
    offers = Offers.of([offer(i, fast_j=10.0 if i < 6 else 10.1) for i in range(8)])
    for server_round in range(1, 20):  # the two dearer clients pull elsewhere
        policy.select(offers, 2, server_round, rng())
        told(policy, {i: direction(0 if i < 6 else 1, 0.5) for i in range(8)})
    policy._learned.debt[:] = 0
    shares = []
    for server_round in range(20, 40):
        chosen = clients(policy.select(offers, 3, server_round, rng(server_round)))
        shares.append(sum(client >= 6 for client in chosen) / len(chosen))
        told(policy, {i: direction(0 if i < 6 else 1, 0.5) for i in range(8)})
    assert 0.15 < np.mean(shares) < 0.45  # as their share of a quarter, though they are dearer


def test_what_clients_have_in_common_does_not_follow_those_who_are_asked_again_and_again():
    learned, first, then = Learned(), np.arange(4), np.arange(4, 8)
    for of_round, place in ((first, 0), (then, 1)):
        for _ in range(20):
            sketches = np.array([direction(place, 0.5)] * 4)
            learned.hear(of_round, np.ones(4), np.ones(4), sketches)
    residual = learned.pull(np.arange(8), np.ones(8, dtype=int)).residual
    assert (residual[first, 0] > 0.05).all() and (residual[first, 1] < -0.05).all()
    assert (residual[then, 0] < -0.05).all() and (residual[then, 1] > 0.05).all()


def heard(n):
    """What is learned of n clients that pull their own ways."""
    learned = Learned()
    for _ in range(10):
        learned.hear(
            np.arange(n), np.ones(n), np.ones(n), np.array([direction(i, 0.5) for i in range(n)])
        )
    return learned


def test_the_fewer_have_been_heard_the_more_their_mean_may_be_off():
    few, many = (heard(n).pull(np.arange(40), np.ones(40, dtype=int)) for n in (4, 16))
    assert few.shared == pytest.approx(4 * many.shared, rel=0.2)


@pytest.mark.parametrize("n_heard", [4, 10, 16])
def test_a_set_has_the_share_of_clients_not_heard_that_all_have(n_heard):
    pull = heard(n_heard).pull(np.arange(20), np.ones(20, dtype=int))
    search = SetSearch(np.ones(20), pull._replace(shared=100.0), np.ones((1, 20)), np.zeros(1))
    _, picks = search.best(10, 10)
    assert (picks < n_heard).sum() == n_heard / 2


def test_what_one_round_lacked_the_next_makes_up_for():
    learned = Learned()
    for _ in range(20):
        learned.hear(
            np.arange(4), np.ones(4), np.ones(4), np.array([direction(i) for i in range(4)])
        )
    pull = learned.pull(np.arange(4), np.ones(4, dtype=int))
    learned.owe(pull, np.array([0]))
    after = learned.pull(np.arange(4), np.ones(4, dtype=int))
    assert (
        after.residual[0] @ (after.aim - pull.aim) < 0 < after.residual[1] @ (after.aim - pull.aim)
    )


def test_an_unknown_client_is_expected_to_err_as_others_did_when_first_heard():
    dearer = [offer(i, fast_j=60.0) for i in range(10, 20)]
    offers, unknown = Offers.of([offer(i) for i in range(10)] + dearer), {}
    for first in (0.6, 5.0):
        policy = Pace(at_least=99, price=0)
        policy.select(offers, 2, 1, rng())
        policy.observe([report(i, loss=first) for i in range(10)])
        policy.observe([report(i, loss=0.5) for i in range(10)])
        chosen = clients(policy.select(offers, 6, 2, rng()))
        unknown[first] = sum(client >= 10 for client in chosen)
    assert policy._learned.first_loss == pytest.approx(5.0) and unknown[0.6] < unknown[5.0]


@pytest.mark.parametrize(
    ("norm", "value"), [(np.nan, 1.0), (np.inf, 1.0), (0.0, 0.0), (1.0, np.nan), (1e30, 1e30)]
)
def test_a_summary_without_sense_spoils_nothing(norm, value):
    policy, offers = Pace(), Offers.of([offer(i) for i in range(8)])
    policy.select(offers, 4, 1, rng())
    strange = UpdateSummary(norm, np.full(PLACES, value))
    sketches = {i: UpdateSummary(1.0, direction(i)) for i in range(4)}
    policy.observe([report(i) for i in range(5)], {**sketches, 4: strange})
    assert len(policy.select(offers, 4, 2, rng())) >= 2
    assert 0.02 <= policy._learned.rho <= 1 and np.isfinite(policy._learned.common).all()


def test_one_endless_update_leaves_what_others_taught():
    learned = Learned()
    sketches = np.array([direction(i, 0.8) for i in range(7)])
    for _ in range(20):
        lengths = np.array([1.0] * 6 + [1e9])
        learned.hear(np.arange(7), np.ones(7), lengths, lengths[:, None] * sketches)
    pull = learned.pull(np.arange(7), np.ones(7, dtype=int))
    assert learned.rho == pytest.approx(0.64, abs=0.05)
    assert np.linalg.norm(pull.residual[0]) > 0.05 * np.linalg.norm(pull.residual[6])


def test_of_many_clients_those_heard_last_are_remembered(monkeypatch):
    monkeypatch.setattr(pace, "_REMEMBERED", 50)
    learned = Learned()
    for first in range(0, 200, 20):
        of_round = np.arange(first, first + 20)
        sketches = np.array([direction(i % 200) for i in of_round])
        learned.hear(of_round, np.ones(20), np.ones(20), sketches)
    assert learned.clients.tolist() == list(range(150, 200))
    known = learned.pull(np.array([10, 198, 199]), np.array([1, 1, 1]))
    assert known.residual.any(axis=1).tolist() == [False, True, True]


def test_pace_never_asks_for_more_than_an_allowance_pays():
    rich = [offer(i, fast_s=5.0) for i in range(3)]
    poor = [offer(i, allowance_j=100.0) for i in range(3, 8)]
    assignments = Pace(at_least=99).select(Offers.of(rich + poor), 3, 1, rng())
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
    assignments = Pace(at_least=99).select(Offers.of(frugal + wasteful), 5, 1, rng())
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


def test_pace_leaves_out_who_would_be_gone_or_run_flat_before_the_end():
    kept = [offer(i, fast_s=2.0) for i in range(3)]
    leaving = [offer(i, available_s=9.0) for i in range(3, 6)]
    flat = [offer(i, battery_j=100.0) for i in range(6, 9)]
    chosen = Pace(at_least=99).select(Offers.of(kept + leaving + flat), 3, 1, rng())
    assert clients(chosen) == [0, 1, 2]


def test_pace_turns_away_from_those_that_do_not_deliver():
    policy = Pace(at_least=99)
    offers = Offers.of([offer(i) for i in range(8)])
    for server_round in range(1, 6):
        chosen = clients(policy.select(offers, 8, server_round, rng(server_round)))
        policy.observe([report(client) for client in chosen if client >= 4])
    assert clients(policy.select(offers, 4, 6, rng())) == [4, 5, 6, 7]


def test_who_does_not_deliver_recovers_when_it_does():
    delivery = Delivery()
    for reports in ([], [report(0, used=False)], [report(0, minibatches=0)], []):
        delivery.ask([0])
        delivery.record(reports)
    assert delivery.share[0] == 0.1
    delivery.ask([0])
    delivery.record([report(0)])
    assert delivery.share[0] == 0.55


def test_pace_finds_the_same_in_a_short_list_as_in_the_whole_pool():
    offers = Offers.of([offer(i, fast_s=1 + (i % 89) / 30, fast_j=5 + i % 83) for i in range(600)])
    whole, short = (Pace(shortlist=n, n_deadlines=5000) for n in (600, 200))
    assert whole.select(offers, 10, 1, rng()) == short.select(offers, 10, 1, rng())


def test_pace_chooses_the_number_of_clients_by_what_a_second_costs():
    offers = Offers.of([offer(i) for i in range(20)])
    numbers = [len(Pace(price=price).select(offers, 20, 1, rng())) for price in (0, 2, 200)]
    assert numbers[0] < numbers[1] < numbers[2] == 20


def test_who_races_waits_and_who_paces_does_not():
    offers = mixed_offers()
    for racing, power in ((True, "fastest"), (False, "slack")):
        assignments = Pace(racing=racing).select(offers, 5, 1, rng())
        assert {a.power for a in assignments} == {power}


def test_pace_selects_from_ten_thousand_clients():
    offers = Offers.of([offer(i, fast_s=1 + (i % 97) / 10) for i in range(10_000)])
    assert len(Pace(at_least=100).select(offers, 100, 1, rng())) == 100


@pytest.mark.parametrize(
    ("accounting", "heavy"), [("charged", "none"), ("training", "some"), ("always-on", "some")]
)
def test_what_a_board_takes_anyway_counts_only_where_it_is_paid_for_taking_part(accounting, heavy):
    """Half of the clients stand on carrier boards that take 200 W, and are alike else."""
    offers = Offers.of([offer(i, carrier_w=200.0 * (i % 2)) for i in range(40)])
    policy = Pace(accounting=accounting, at_least=8)
    chosen = [
        client
        for server_round in range(6)
        for client in clients(policy.select(offers, 8, server_round, rng(server_round)))
    ]
    share = np.mean([client % 2 for client in chosen])
    assert share == 0 if heavy == "none" else 0.2 < share < 0.8


def test_where_training_alone_is_paid_fewer_take_part_and_take_their_time():
    offers = Offers.of([offer(i, idle_power_w=8.0) for i in range(40)])
    chosen = {
        accounting: Pace(accounting=accounting).select(offers, 20, 1, rng())
        for accounting in ("training", "charged", "always-on")
    }
    training, *others = (len(chosen[name]) for name in ("training", "charged", "always-on"))
    assert training < min(others)
    assert chosen["training"][0].deadline_s >= chosen["charged"][0].deadline_s
