"""The systemd units that `wattfed units` prints."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import warm
from tests.waiting import TIMEOUT_S
from wattfed.server.cli import cli
from wattfed.server.commands.deploy import UNITS

pytestmark = pytest.mark.processes


def printed(unit: str) -> str:
    return CliRunner().invoke(cli, ["units", unit]).output


@pytest.fixture(scope="module", params=UNITS)
def unit(request) -> str:
    return printed(request.param)


def test_a_unit_runs_this_installation_as_nobody_special(unit):
    (command,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    program = Path(command.removeprefix("ExecStart=").split()[0])
    assert program.parent == Path(sys.executable).parent and program.exists()
    settings = set(unit.splitlines())
    assert {"User=wattfed", "NoNewPrivileges=yes", "ProtectSystem=strict", "UMask=0077"} <= settings
    assert "@" not in unit


@pytest.mark.parametrize("unit", UNITS)
def test_the_options_of_a_unit_are_known_to_its_command(unit):
    command = re.search(r"^ExecStart=(.*?[^\\])$", printed(unit), re.M | re.S)[1]
    program, *words = command.replace("\\\n", " ").split()
    subcommand = [word for word in words[:1] if not word.startswith("-")]
    help_text = warm.run([program, *subcommand, "--help"])
    options = {word for word in words if word.startswith("--")}
    assert options and options <= set(re.findall(r"--[a-z-]+", help_text.stdout))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_knows_every_key_of_a_unit(name, tmp_path):
    file = tmp_path / f"wattfed-{name}.service"
    file.write_text(printed(name))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert str(file) not in done.stderr, done.stderr
