"""A real SuperLink takes neither SuperNodes nor commands that it does not know."""

from __future__ import annotations

import pytest

from tests.federation import Federation
from wattfed.server.flower_ports import ONE_PORT_SINCE, flower_version
from wattfed.server.flower_tools import FlowerRunFailed
from wattfed.server.keys import Keys

pytestmark = pytest.mark.processes

NODES = [{"partition-id": 0, "num-partitions": 1}]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """One registered SuperNode; strangers came before it, and had as much time as it took."""
    folder = tmp_path_factory.mktemp("security")
    with Federation(folder, []) as federation:
        ours = ("--root-certificates", str(federation.keys.authority))
        others = Keys(folder / "others")
        _, known = federation.keys.node("node-0")
        federation.flwr("supernode", "register", str(known))
        key = ("--auth-supernode-private-key", str(federation.keys.node("node-0")[0]))
        unknown = ("--auth-supernode-private-key", str(others.node("node-0")[0]))
        federation.start_stranger("no-tls", "--insecure")
        federation.start_stranger(
            "other-authority", "--root-certificates", str(others.authority), *key
        )
        federation.start_stranger("no-key", *ours)
        federation.start_stranger("unknown-key", *ours, *unknown)
        federation.add_node(NODES[0])
        federation.await_nodes()
        yield federation


def test_only_the_registered_node_is_online_and_none_without_tls(federation):
    nodes = federation.flwr("supernode", "list")["nodes"]
    assert [node["status"] for node in nodes] == ["online"]


@pytest.mark.parametrize("stranger", ["no-key", "unknown-key", "other-authority"])
def test_a_supernode_with_the_wrong_key_or_authority_is_refused(federation, stranger):
    ends = flower_version() >= ONE_PORT_SINCE  # before, it asks again for ever
    federation.await_log(stranger, "Exit Code: " if ends else "Connection attempt failed")


@pytest.mark.parametrize("how", ["another authority", "no TLS"])
def test_a_command_that_does_not_know_the_server_gets_no_answer(federation, how):
    config = federation.folder / "home" / "config.toml"
    ours = config.read_text()
    trust = f'root-certificates = "{federation.keys.authority.resolve()}"'
    assert trust in ours
    other = Keys(federation.folder / "others").authority
    theirs = f'root-certificates = "{other}"' if how == "another authority" else "insecure = true"
    config.write_text(ours.replace(trust, theirs))
    try:
        with pytest.raises(FlowerRunFailed, match="unavailable"):
            federation.flwr("ls")
    finally:
        config.write_text(ours)
    assert federation.flwr("ls")["success"]
