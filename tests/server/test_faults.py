"""What goes wrong in the field, with real processes: rounds go on with those who are left.

One federation of three SuperNodes; a fourth of it is a link that is slow, and one that is cut.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.federation import COMPLETED, Federation
from tests.proxy import Proxy

APP = Path(__file__).resolve().parents[1] / "fault_app"
NODES = [{"partition-id": i, "num-partitions": 3} for i in range(3)]
KILLED, CUT, SLOW = 0, 1, 2
ROUND_S = 120.0


def await_file(path: Path) -> None:
    give_up_s = time.monotonic() + ROUND_S
    while not path.exists():
        assert time.monotonic() < give_up_s, f"no {path.name}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Three runs, faults in each: their rounds, and what was logged."""
    folder = tmp_path_factory.mktemp("faults")
    federation = Federation(folder, NODES)
    link, slow = Proxy(federation.ports.fleet), Proxy(federation.ports.fleet, bytes_per_s=2e6)
    federation.through = {CUT: link.address, SLOW: slow.address}

    def config(name, rounds, timeout_s=90.0, faults=""):
        (folder / name).mkdir()
        own = {"rounds": rounds, "timeout-s": timeout_s, "faults": faults}
        return {**own, "out-dir": str(folder / name)}

    def told(name):
        lines = (folder / name / "rounds.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    with federation:
        # the updates of one client are of no use, and its link is slow
        bad = federation.run(
            APP, config("bad", 3, faults=f"1:{SLOW}:nan 2:{SLOW}:shape 3:{SLOW}:huge")
        )
        # a power cut in training, a cable pulled in training
        losing = federation.submit(APP, config("lost", 2, 25.0, f"1:{KILLED}:hang 1:{CUT}:hang"))
        for client in (KILLED, CUT):
            await_file(folder / "lost" / f"1-{client}-hang")
        federation.kill_node(KILLED)
        link.cut()
        await_file(folder / "lost" / "rounds.jsonl")
        link.join()
        federation.kill_node(CUT)  # its ClientApp still trains for a round that is over
        federation.start_node(KILLED)
        federation.start_node(CUT)
        lost = federation.wait(losing)
        # the server's power fails
        federation.kill_superlink()
        federation.start_superlink()
        federation.await_nodes(restarting=True)
        after = federation.run(APP, config("after", 1))
        yield {
            "bad": (bad, told("bad")),
            "lost": (lost, told("lost")),
            "after": (after, told("after")),
        }
    link.close()
    slow.close()


def test_every_run_and_every_round_ends(story):
    assert [result.status for result, _ in story.values()] == [COMPLETED] * 3
    assert [len(rounds) for _, rounds in story.values()] == [3, 2, 1]


def test_updates_of_no_use_are_left_out_and_their_client_is_named(story):
    result, rounds = story["bad"]
    assert [entry["rejected"] for entry in rounds] == [1, 1, 1]
    assert [entry["model"] for entry in rounds] == [1, 2, 3]  # of the two others
    assert result.log.count(f"update of client {SLOW} rejected") == 3


def test_a_round_goes_on_with_those_whom_no_power_cut_and_no_pulled_cable_took(story):
    _, rounds = story["lost"]
    first = rounds[0]
    assert first["clients"] == [0, 1, 2]
    assert (first["reported"], first["failed"]) == (1, 2)
    assert [entry["model"] for entry in rounds] == [1, 2]  # nothing is lost


def test_a_superlink_that_starts_again_knows_its_nodes(story):
    _, rounds = story["after"]
    assert rounds[0]["clients"] == [0, 1, 2] and rounds[0]["reported"] == 3
