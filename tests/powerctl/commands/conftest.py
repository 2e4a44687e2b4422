"""The command, run in this process, and a predictor that it fitted to few modes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from powerctl.cli import cli
from powerctl.errors import PowerctlError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No test sees what another adds to a person's own."""
    monkeypatch.setenv("POWERCTL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def powerctl():
    """Run a command line that must succeed; gives its standard output."""

    def run(*arguments):
        done = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


@pytest.fixture
def as_json(powerctl):
    """Run a command line with --json; gives what it says."""
    return lambda *arguments: json.loads(powerctl(*arguments, "--json"))


@pytest.fixture
def failing():
    """Run a command line that must fail in a way that a person can mend; gives its message."""

    def run(*arguments):
        try:
            done = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
        except PowerctlError as error:
            return str(error)
        assert done.exit_code != 0, done.output
        return done.stderr

    return run


@pytest.fixture(scope="session")
def few_csv(small_table, tmp_path_factory):
    """Twenty modes of the small table."""
    rows = np.random.default_rng(0).permutation(len(small_table))[:20]
    path = tmp_path_factory.mktemp("few") / "few.csv"
    small_table.take(rows).write(path)
    return path


@pytest.fixture(scope="session")
def fitted(powerctl, few_csv):
    path = few_csv.with_name("my-net.json")
    powerctl("fit", few_csv, "--no-reference", "--out", path)
    return path


@pytest.fixture
def my_net(fitted, tmp_path):
    """A predictor fitted to them, in a file of the test's own."""
    return shutil.copy(fitted, tmp_path)
