"""What the nodes of a run are called, in messages and in results."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from powerctl.errors import InvalidInput
from tests.strategies.offers_of import offer
from wattfed.client.fleet import profile_from_node_config
from wattfed.strategies.round.nodes import Roster

FIRST, SECOND, THIRD = 1878368034749353623, 10531129441609500553, 18446744073709551615


def refuse(node, client, why):
    raise AssertionError((node, client, why))


def roster_of(named, **told):
    """A roster of three nodes: `named` by their keys, or as they are `told` to call themselves."""
    nodes = [FIRST, SECOND, THIRD]
    grid = SimpleNamespace(
        get_nodes=lambda: [SimpleNamespace(node_id=n, name=named.get(n, "")) for n in nodes]
    )
    roster = Roster()
    roster.to_ask(grid, 1)
    names = [told.get(key, "") for key in ("first", "second", "third")]
    offers = {
        node: offer(client, n_clients=3, name=name)
        for client, (node, name) in enumerate(zip(nodes, names, strict=True))
    }
    roster.admitted(offers, refuse)
    return roster


def test_a_node_is_called_by_its_key_else_by_what_it_says_else_by_its_number():
    roster = roster_of({FIRST: "jetson-0"}, first="liar", second="orin-nano")
    assert roster.node(FIRST) == f"jetson-0 (node {FIRST})"
    assert roster.client(1) == "client 1 (orin-nano)"
    assert roster.node(THIRD) == f"node {THIRD}" and roster.client(2) == "client 2"


def test_nodes_that_say_the_same_name_are_told_apart():
    roster = roster_of({FIRST: "orin-nano"}, second="orin-nano", third="orin-agx")
    assert [*map(roster.name_of, (FIRST, SECOND, THIRD))] == [
        "orin-nano",
        "orin-nano-105311",
        "orin-agx",
    ]


def test_a_new_node_takes_over_the_name_of_one_that_has_left():
    roster = roster_of({}, first="orin-nano")
    new = SimpleNamespace(node_id=SECOND + 1, name="")
    roster.to_ask(SimpleNamespace(get_nodes=lambda: [new]), 2)
    roster.admitted({new.node_id: offer(0, n_clients=3, name="orin-nano")}, refuse)
    assert roster.client(0) == "client 0 (orin-nano)"


def test_the_operator_names_a_node_within_what_a_line_can_hold():
    node = {"partition-id": 0, "device": "twin:orin-nano"}
    assert profile_from_node_config({**node, "name": "garage"}).name == "garage"
    for name in ("x" * 65, "two\nlines", 7):
        with pytest.raises(InvalidInput, match="name is"):
            profile_from_node_config({**node, "name": name})
