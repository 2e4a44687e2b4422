"""The files that `wattfed init` writes are such as the programs take that read them."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from flwr.common.config import parse_config_args

from tests import warm
from wattfed.client.agent.settings import read_settings
from wattfed.client.fleet import profile_from_node_config
from wattfed.server.cli import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.processes
ASKED = ("--server", "fl.example.org,10.0.0.1", "--node", "a", "--node", "b=twin:orin-nano")


@pytest.fixture
def made(call, tmp_path, monkeypatch):
    """Make a deployment in the current folder; gives where it is."""
    monkeypatch.chdir(tmp_path)

    def make(*more: object) -> Path:
        done = call(main, "init", "fleet", *ASKED, *more)
        assert done.returncode == 0, done.stderr
        files = sorted(str(p) for p in Path("fleet").rglob("*") if p.is_file())
        assert sorted(done.stdout.split()) == files
        return tmp_path / "fleet"

    return make


def env_of(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def test_each_node_is_a_client_of_its_own_with_its_device(made):
    folder = made("--no-agent", "--port", 9000)
    for number, (name, device) in enumerate((("a", "jetson"), ("b", "twin:orin-nano"))):
        env = env_of(folder / "nodes" / name / "etc" / "wattfed" / "supernode.env")
        assert env["SUPERLINK"] == "fl.example.org:9000"
        config = parse_config_args([env["NODE_CONFIG"]])
        profile = profile_from_node_config(config)
        assert (profile.client, profile.device) == (number, device)
        assert config["num-partitions"] == 2 and config["state-dir"].startswith("/var/lib/")
        assert not list((folder / "nodes" / name).rglob("*agent*"))


def test_an_agent_has_the_device_where_there_is_one(made):
    folder = made()
    etc = folder / "nodes" / "b" / "etc"
    assert read_settings(etc / "wattfed" / "agent.toml").device == "twin:orin-nano"
    unit = (etc / "systemd" / "system" / "wattfed-agent.service").read_text()
    config = parse_config_args([env_of(etc / "wattfed" / "supernode.env")["NODE_CONFIG"]])
    assert f"--socket {config['agent']} " in unit and "device" not in config


def test_units_are_those_that_are_printed_but_for_where_the_programs_are(made, call):
    folder = made()
    units = list(folder.rglob("*.service"))
    assert len(units) == 2 + 2 * 2
    for path in units:
        printed = call(main, "units", path.stem.removeprefix("wattfed-")).stdout
        here = str(Path(sys.executable).parent)
        assert path.read_text() == printed.replace(here, "/opt/wattfed/bin")


def test_the_server_listens_with_options_that_it_knows(made):
    (line,) = (made() / "server" / "etc" / "wattfed" / "superlink.env").read_text().splitlines()
    words = line.removeprefix("OPTIONS=").split()
    known = warm.run([str(Path(sys.executable).parent / "flower-superlink"), "--help"]).stdout
    assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z-]+", known))
    flower = tomllib.loads(Path("fleet/config.toml").read_text())
    address = flower["superlink"][flower["superlink"]["default"]]["address"]
    assert address.startswith("fl.example.org:") and any(
        word.rpartition(":")[2] == address.rpartition(":")[2] for word in words
    )


def test_the_steps_begin_with_the_keys_and_register_every_node(made, call):
    steps = (made() / "README.md").read_text()
    (line,) = re.findall(r"^ +wattfed (keys .*)", steps, re.M)
    done = call(main, *shlex.split(line))
    assert done.returncode == 0, done.stderr
    keys = re.findall(r"flwr supernode register (\S+) fleet", steps)
    assert len(keys) == 2 and all(Path(key).is_file() for key in keys)
    for service in re.findall(r"enable --now (.*)", steps):
        for name in service.split():
            assert list(Path("fleet").rglob(f"{name}.service"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["there", *ASKED], "there is there already"),
        (["x", "--server", "a b", "--node", "n"], "server 'a b' is no host name"),
        (["x", "--server", "", "--node", "n"], "server '' is no host name"),
        (["x", "--server", "h"], "needs nodes: --node NAME"),
        (["x", "--server", "h", "--node", "../n"], "the name of a node '../n' is no name"),
        (["x", "--server", "h", "--node", 'n=a" b="1'], "is no device"),
        (["file/x", *ASKED], "cannot write to file/x"),
    ],
)
def test_what_cannot_be_deployed_is_one_clear_line(call, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    done = call(main, "init", *arguments)
    assert done.returncode == 2 and message in done.stderr and not (tmp_path / "x").exists()
