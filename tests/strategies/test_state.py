from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg

from powerctl.errors import InvalidInput
from tests.strategies.offers_of import clients, offer, report, rng
from wattfed.server.run.checkpoints import from_bytes, to_bytes
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.catalogue import POLICIES, make_policy
from wattfed.strategies.policies.random_selection import RandomSelection
from wattfed.strategies.round.aggregation import AGGREGATIONS, Aggregation, make_aggregation
from wattfed.strategies.round.numpy_reply import NumpyReply
from wattfed.strategies.round.updates import GlobalModel
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.state import Memory, lacks_state, memory_of

SOON = {"tifl": "tifl(interval=2)", "oort": "oort(pacer_step=2)", "haccs": "haccs(rho=0)"}


def policy_of(name):
    return make_policy(RunConfig(strategy=SOON.get(name, name)))


def some_offers():
    labels = [(30.0, 0.0), (0.0, 30.0), ()]
    return Offers.of([offer(i, fast_s=1 + i / 4, label_counts=labels[i % 3]) for i in range(12)])


def rounds(policy, first, last):
    """Who is selected in some rounds, of which the policy learns."""
    selected = []
    for server_round in range(first, last + 1):
        asked = policy.select(some_offers(), 4, server_round, rng(server_round))
        selected.append(asked)
        policy.observe([report(c, loss=1 / (1 + c + server_round)) for c in clients(asked)[1:]])
    return selected


@pytest.mark.parametrize("name", POLICIES.names())
def test_a_fresh_policy_goes_on_where_another_was(name):
    policy, fresh = policy_of(name), policy_of(name)
    rounds(policy, 1, 6)
    memory_of(fresh).restore(from_bytes(to_bytes(memory_of(policy).state())))
    assert rounds(fresh, 7, 20) == rounds(policy, 7, 20)


@pytest.mark.parametrize("name", POLICIES.names())
def test_every_policy_tells_all_that_it_keeps_and_no_parameter(name):
    policy = policy_of(name)
    kept = {item.name for item in fields(policy) if not item.init}
    assert memory_of(policy).state().keys() == kept
    assert not lacks_state(policy)


def test_what_is_known_of_clients_is_told_whole():
    policy = policy_of("oort")
    rounds(policy, 1, 3)
    known = policy._known
    assert memory_of(policy).state()["_known"].keys() == {item.name for item in fields(known)}


@pytest.mark.parametrize("name", AGGREGATIONS.names())
def test_the_state_of_every_aggregation_is_known(name):
    config = RunConfig(aggregation=name, per_round=9)
    state = from_bytes(to_bytes(make_aggregation(config).memory.state()))
    make_aggregation(config).memory.restore(state)


@pytest.mark.parametrize(("ours", "theirs"), [("oort", "tifl"), ("random", "oort")])
def test_the_state_of_another_policy_is_refused(ours, theirs):
    with pytest.raises(InvalidInput, match=r"not the state of a \w+, which has .*_?known"):
        memory_of(policy_of(ours)).restore(memory_of(policy_of(theirs)).state())


def test_the_state_of_another_aggregation_is_refused():
    adam, plain = (make_aggregation(RunConfig(aggregation=name)) for name in ("fedadam", "fedavg"))
    with pytest.raises(InvalidInput, match="FedAvg, which has none: .*m_t"):
        plain.memory.restore(adam.memory.state())


class Forgetful:
    """Somebody's policy that says nothing of what it keeps."""

    def __init__(self) -> None:
        self.seen = {}


class OwnAggregation(FedAvg):
    """Somebody's aggregation on top of Flower's."""


def test_one_of_somebody_is_not_asked_for_its_state_when_an_aggregate_is_not_finite():
    aggregation = Aggregation(OwnAggregation(min_train_nodes=1))
    arrays = ArrayRecord([np.zeros(2, dtype=np.float32)])
    aggregation.base = GlobalModel.of(arrays, None)
    poisoned = NumpyReply({"0": np.full(2, np.inf, dtype=np.float32)}, {"num-examples": 1})
    assert aggregation.aggregate_train(1, [poisoned]) == (None, None)


def test_who_does_not_tell_what_it_keeps_is_refused():
    assert memory_of(Forgetful()).state() == {}
    with pytest.raises(InvalidInput, match="Forgetful does not tell what it keeps"):
        memory_of(Forgetful()).restore({})
    with pytest.raises(InvalidInput, match="OwnAggregation does not tell what it keeps"):
        Aggregation(OwnAggregation()).memory.restore({})


@dataclass
class Learns(Memory):
    """Somebody's policy that lists what it remembers."""

    remembers = ("seen",)
    least: int = 1
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0), init=False)


def test_who_lists_what_it_remembers_goes_on():
    before, after = Learns(), Learns(least=2)
    before.seen = np.arange(3.0)
    after.restore(from_bytes(to_bytes(before.state())))
    assert after.seen.tolist() == [0, 1, 2] and after.least == 2


def test_a_frozen_dataclass_keeps_nothing():
    assert memory_of(RandomSelection()).state() == {} and not lacks_state(RandomSelection())
    with pytest.raises(InvalidInput, match="which has none: seen"):
        memory_of(RandomSelection()).restore({"seen": 1})
