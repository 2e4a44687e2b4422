"""A real SuperLink takes neither SuperNodes nor commands that it does not know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import warm
from tests.federation import Federation
from tests.proxy import Proxy
from tests.waiting import TIMEOUT_S
from wattfed.server.deploy.keys import Keys
from wattfed.server.engines.flower_tools import (
    ONE_PORT_SINCE,
    FlowerRunFailed,
    FlowerTools,
    flower_ports,
    flower_version,
)

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
        proxy = Proxy(federation.ports.fleet, host="127.0.0.2")
        federation.start_stranger("other-name", *ours, *key, superlink=proxy.address)
        federation.start_stranger("no-key-file", *ours, *key[:1], str(folder / "none"))
        federation.start_stranger("public-key", *ours, *key[:1], str(known))
        federation.add_node(NODES[0])
        federation.await_nodes()
        yield federation
        proxy.close()


@pytest.fixture(scope="module")
def explained():
    """What the page on faults explains: all that Flower is quoted with."""
    page = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")
    _, _, table = page.partition("## What Flower says when something cannot start")
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {quoted for row in rows for quoted in re.findall("`(.+?)`", row[1])}


def test_only_the_registered_node_is_online_and_none_without_tls(federation):
    nodes = federation.flwr("supernode", "list")["nodes"]
    assert [node["status"] for node in nodes] == ["online"]


@pytest.mark.parametrize(
    ("stranger", "says"),
    [
        ("no-key", "[code: 2001]"),
        ("unknown-key", "[code: 2004]"),
        ("other-authority", "unable to get local issuer certificate"),
        ("other-name", "certificate is not valid for"),
        ("no-key-file", "FileNotFoundError"),
        ("public-key", "Exit Code: 302"),
        ("no-tls", "Connection attempt failed"),
    ],
)
def test_a_supernode_that_is_refused_says_what_the_page_explains(
    federation, stranger, says, explained
):
    if flower_version() < ONE_PORT_SINCE and stranger not in ("no-key-file", "public-key"):
        says = "Connection attempt failed"  # before, it asks again for ever
    federation.await_log(stranger, says)
    assert says in explained


@pytest.mark.skipif(flower_version() < ONE_PORT_SINCE, reason="gRPC says less")
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({}, "address already in use"),
        ({"--ssl-keyfile": "ca.key"}, "KEY_VALUES_MISMATCH"),
        ({"--ssl-certfile": "none.crt"}, "does not point to a file"),
        ({"--database": "none/state.db"}, "unable to open database file"),
        ({"--database": "ca.crt"}, "file is not a database"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_superlink_that_cannot_start_says_what_the_page_explains(
    federation, fault, says, explained, tmp_path
):
    ours = {"--ssl-ca-certfile": "ca.crt", "--ssl-certfile": "server.crt"}
    options = {**ours, "--ssl-keyfile": "server.key", **fault}
    keys = federation.keys.folder
    words = [word for name, file in options.items() for word in (name, str(keys / file))]
    ports = flower_ports("127.0.0.1") if fault else federation.ports
    with FlowerTools(tmp_path / "second", warm.programs(), warm.Popen) as tools:
        superlink = tools.start("superlink", "flower-superlink", *words, *ports.superlink_options)
        assert superlink.wait(TIMEOUT_S) != 0
        assert says in tools.log("superlink").read_text()
    assert says in explained


@pytest.mark.parametrize("how", ["another authority", "no TLS"])
def test_a_command_that_does_not_know_the_server_gets_no_answer(federation, how, explained):
    config = federation.folder / "home" / "config.toml"
    ours = config.read_text()
    trust = f'root-certificates = "{federation.keys.authority.resolve()}"'
    assert trust in ours
    other = Keys(federation.folder / "others").authority
    theirs = f'root-certificates = "{other}"' if how == "another authority" else "insecure = true"
    config.write_text(ours.replace(trust, theirs))
    try:
        with pytest.raises(FlowerRunFailed, match="SuperLink is unavailable"):
            federation.flwr("ls")
        assert "Connection to the SuperLink is unavailable" in explained
    finally:
        config.write_text(ours)
    assert federation.flwr("ls")["success"]
