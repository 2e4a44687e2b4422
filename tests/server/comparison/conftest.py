from __future__ import annotations

import pytest

from tests.server.comparison.running import run
from wattfed.server.comparison.grid import Comparison
from wattfed.strategies.run_config import RunConfig


@pytest.fixture(scope="session")
def small_fleet(tmp_path_factory):
    path = tmp_path_factory.mktemp("fleets") / "four.toml"
    path.write_text(
        '[[group]]\nboard = "orin-agx"\ncount = 2\npower_w = 30\n'
        '[[group]]\nboard = "orin-nano"\ncount = 2\npower_w = 10\nlink_mbit_s = 20\n'
    )
    return str(path)


@pytest.fixture(scope="session")
def comparison(small_fleet):
    return Comparison(
        base=RunConfig(fleet=small_fleet, rounds=3, local_epochs=1),
        strategies=("random", "pace"),
        powers=("maxn",),
        per_round=(2,),
        seeds=(0, 1),
        targets=(0.3,),
    )


@pytest.fixture(scope="session")
def whole(tmp_path_factory, comparison):
    """The folder of the comparison, finished."""
    return run(tmp_path_factory.mktemp("whole"), comparison)[0]
