"""What goes wrong in the field, with real processes: rounds go on with those who are left.

One federation of three SuperNodes; a fourth of it is a link that is slow, and one that is cut.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.federation import COMPLETED, Federation
from tests.proxy import Proxy
from tests.waiting import TIMEOUT_S, await_state

pytestmark = pytest.mark.processes

APP = Path(__file__).resolve().parents[1] / "fault_app"
NODES = [{"partition-id": i, "num-partitions": 3} for i in range(3)]
KILLED, CUT, SLOW = 0, 1, 2


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Two runs, faults in each: their rounds, and what was logged."""
    folder = tmp_path_factory.mktemp("faults")
    federation = Federation(folder, NODES)
    link, slow = Proxy(federation.ports.fleet), Proxy(federation.ports.fleet, bytes_per_s=4e6)
    federation.through = {CUT: link.address, SLOW: slow.address}

    def config(name, rounds, timeout_s, faults):
        (folder / name).mkdir()
        own = {"rounds": rounds, "timeout-s": timeout_s, "faults": faults}
        return {**own, "out-dir": str(folder / name)}

    def told(name):
        lines = (folder / name / "rounds.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    with federation:
        # a power cut in training, a cable pulled in training
        faults = f"1:{KILLED}:hang 1:{CUT}:hang 2:{CUT}:shape"
        losing = federation.submit(APP, config("lost", 2, 90.0, faults))
        for client in (KILLED, CUT):
            await_state((folder / "lost" / f"1-{client}-hang").exists)
        federation.kill_node(KILLED)
        link.cut()
        await_state(lambda: link.has_held)
        link.join()  # soon, or Flower thinks it gone
        await_state((folder / "lost" / "rounds.jsonl").exists)
        (folder / "lost" / "go").touch()  # what it trained comes after its round
        lost = federation.wait(losing)
        federation.await_nodes(online=2)  # or it would take the one that was killed for another
        federation.start_node(KILLED)
        federation.await_nodes()
        after = federation.run(APP, config("after", 1, TIMEOUT_S, f"1:{CUT}:nan 1:{SLOW}:huge"))
        yield {"lost": (lost, told("lost")), "after": (after, told("after"))}
    link.close()
    slow.close()


def test_every_run_and_every_round_ends(story):
    assert [result.status for result, _ in story.values()] == [COMPLETED] * 2
    assert [len(rounds) for _, rounds in story.values()] == [2, 1]


def test_a_round_goes_on_with_those_whom_no_power_cut_and_no_pulled_cable_took(story):
    first = story["lost"][1][0]
    assert first["clients"] == [0, 1, 2]
    assert (first["reported"], first["failed"], first["model"]) == (1, 2, 1)


def test_who_was_cut_off_takes_part_again_and_a_late_update_has_no_say(story):
    second = story["lost"][1][1]
    assert second["clients"] == [CUT, SLOW] and second["model"] == 2


def test_who_was_killed_is_back(story):
    assert story["after"][1][0]["clients"] == [KILLED, CUT, SLOW]


def test_updates_of_no_use_are_left_out_and_their_clients_are_named(story):
    (lost, (_, second)), (after, (last,)) = story.values()
    assert (second["rejected"], last["rejected"]) == (1, 2)
    assert last["reported"] == 3 and last["model"] == 1  # of the one that came back
    assert lost.log.count(f"client {CUT}: update refused") == 1
    for client in (CUT, SLOW):
        assert after.log.count(f"client {client}: update refused") == 1
