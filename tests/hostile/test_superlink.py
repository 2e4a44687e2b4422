"""Hostile SuperNodes on a real SuperLink: a run is what the honest ones make of it.

Two of four nodes attack in every round, until each has been refused three times in a row. A fifth
comes later, with the partition of another.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.federation import COMPLETED, Federation
from tests.hostile.attacks import BYTES, OFFERS, REPORTS, WEIGHTS

pytestmark = pytest.mark.processes

APP = Path(__file__).resolve().parents[1] / "fault_app"
NODES = [{"partition-id": i, "num-partitions": 4} for i in range(4)]
HONEST = [0, 1]
ATTACKS = {
    "replies": {
        2: ["garbage", "an-npz", "reports-as-another"],
        3: ["objects", "a-shape-of-terabytes", "not-finite"],
    },
    "offers": {
        2: ["modes-without-end", "number-beyond-all", "number-of-another"],
        3: ["other-partitions", "examples-infinite", "labels-without-end"],
    },
}
CLAIMED = ["weight-not-a-number", "weight-beyond-all", "weight-of-a-list"]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Runs by name: how they ended, and their rounds."""
    folder = tmp_path_factory.mktemp("hostile")
    found = {}
    with Federation(folder, NODES) as federation:

        def run(name, rounds, faults):
            (folder / name).mkdir()
            own = {"rounds": rounds, "timeout-s": 90.0, "faults": faults}
            result = federation.run(APP, {**own, "out-dir": str(folder / name)}, timeout_s=900)
            lines = (folder / name / "rounds.jsonl").read_text().splitlines()
            found[name] = result, [json.loads(line) for line in lines]

        for name, attacks in ATTACKS.items():
            each = [
                f"{n}:{client}:{attack}"
                for client, mine in attacks.items()
                for n, attack in enumerate(mine, start=1)
            ]
            run(name, 4, " ".join(each))
        _, key = federation.keys.node(f"node-{len(NODES)}")
        federation.flwr("supernode", "register", str(key))
        federation.add_node(NODES[0])
        federation.await_nodes()
        run("taken", 1, " ".join(f"1:{n}:{attack}" for n, attack in enumerate(CLAIMED, start=1)))
    return found


def test_every_run_completes_and_its_model_is_the_honest_ones(story):
    assert [result.status for result, _ in story.values()] == [COMPLETED] * 3
    models = {name: [entry["model"] for entry in rounds] for name, (_, rounds) in story.items()}
    assert models == {"replies": [1, 2, 3, 4], "offers": [1, 2, 3, 4], "taken": [1]}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_refusal_is_a_line_with_node_client_and_reason(story, name):
    result, rounds = story[name]
    for entry in rounds[:3]:
        assert len(entry["refusals"]) == 2 and len({r["node"] for r in entry["refusals"]}) == 2
        for refusal in entry["refusals"]:
            assert f"node {refusal['node']}" in result.log and refusal["reason"] in result.log
            assert name == "offers" or refusal["client"] in ATTACKS[name]
    assert [entry["rejected"] for entry in rounds] == (
        [2, 2, 1, 0] if name == "replies" else [0] * 4
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_who_is_refused_three_times_in_a_row_rests_and_the_honest_ones_go_on(story, name):
    result, rounds = story[name]
    assert rounds[3]["clients"] == HONEST and rounds[3]["reported"] == 2
    assert rounds[3]["refusals"] == [] and result.log.count("3 refusals in a row") == 2


def test_of_two_nodes_with_one_partition_one_takes_part_and_the_run_goes_on(story):
    _, ((entry),) = story["taken"]
    (refusal,) = entry["refusals"]
    assert refusal["client"] == 0 and "check partition-id" in refusal["reason"]
    assert entry["clients"] == [0, 1, 2, 3] and entry["reported"] == 4


def test_no_attack_is_called_by_a_name_that_there_is_not():
    named = {a for attacks in ATTACKS.values() for mine in attacks.values() for a in mine}
    assert {*named, *CLAIMED} <= {*BYTES, *OFFERS, *REPORTS, *WEIGHTS}
