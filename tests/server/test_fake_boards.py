"""A federation whose clients are fake boards: files that behave as a Jetson's, run by the twin."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from benchmarks.in_process_grid import InProcessGrid
from powerctl.devices.roots import open_sysfs
from powerctl.fakes.making import make_fake_board
from powerctl.jetson.journal import Journal, holder
from powerctl.jetson.rails import find_rails
from powerctl.jetson.sysfs import Sysfs
from tests.powerctl.daemon.conftest import serve, start  # noqa: F401, fixtures
from tests.powerctl.jetson.conftest import settings
from wattfed.client.app import app
from wattfed.server.engines.flower import run_federation
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes

FLEET = [  # board, JetPack, and what its node may spend
    ("orin-agx", "6", {"power-w": 30.0}),
    ("orin-nano", "5.1", {"power-w": 12.0, "round-energy-j": 400.0}),
    ("xavier-agx", "4", {"power-w": 18.0}),
    ("nano", "4", {}),
]


@pytest.fixture
def boards(tmp_path):
    return [make_fake_board(name, jp, tmp_path / name) for name, jp, _ in FLEET]


@pytest.fixture
def config(tmp_path):
    return RunConfig(
        rounds=2, per_round=4, strategy="all", local_epochs=2, min_nodes=4, out_dir=str(tmp_path)
    )


def reports_of(devices, config):
    """Run the federation over devices, each within its limits of `FLEET`."""
    grid = InProcessGrid(app, len(devices), config.to_flower())
    for node, device, (_, _, limits) in zip(
        grid.get_node_ids(), devices, FLEET[: len(devices)], strict=True
    ):
        grid.context(node).node_config.update({"device": device, **limits})
    result = run_federation(grid, config)
    return result, [report for _, report in result.ledger.reports]


def test_rounds_train_within_every_limit_and_leave_the_boards_as_they_were(boards, config):
    before = [settings(board) for board in boards]
    result, reports = reports_of([f"jetson:{board.root}" for board in boards], config)
    assert [settings(open_sysfs(board.root)) for board in boards] == before
    assert not any(Journal(board).found or holder(board) for board in boards)
    assert len(reports) == 2 * len(FLEET) and not any(report.decline for report in reports)
    assert not any(r.broke_power_limit or r.broke_budget or r.guard_steps for r in reports)
    assert all(report.minibatches for report in reports)
    assert result.rows[-1].value > result.rows[0].value + 0.2


def test_a_round_through_the_daemon_is_the_same(boards, config, serve):  # noqa: F811
    before = settings(boards[0])
    config = replace(config, rounds=1, per_round=1, min_nodes=1)
    alone = reports_of([f"jetson:{boards[0].root}"], config)[1]
    daemon = serve(boards[0].root)
    served = reports_of([f"jetson:{boards[0].root}"], replace(config, name="served"))[1]
    assert "applied" in daemon.expect("as it wished")
    assert settings(open_sysfs(boards[0].root)) == before
    assert (served[0].modes, served[0].minibatches) == (alone[0].modes, alone[0].minibatches)
    assert served[0].energy_j == pytest.approx(alone[0].energy_j, rel=0.01)


def test_a_fake_board_costs_what_the_twin_of_its_board_does(boards, config):
    names = [name for name, _, _ in FLEET]
    devices = [f"twin:{name}" for name in names]
    devices[2] = f"jetson:{boards[2].root}"  # whose release is the catalogue's default
    fake = [r for r in reports_of(devices, config)[1] if r.client == 2]
    devices[2] = f"twin:{names[2]}"
    own = [r for r in reports_of(devices, replace(config, name="twins"))[1] if r.client == 2]
    for one, other in zip(fake, own, strict=True):
        assert (one.minibatches, one.modes, one.loss) == (
            other.minibatches,
            other.modes,
            other.loss,
        )
        assert one.time_s == pytest.approx(other.time_s, abs=0.5)
        # the twin also counts what is drawn as power falls after the training
        assert 0.95 * other.energy_j < one.energy_j < other.energy_j


def test_a_sensor_that_is_lost_in_training_takes_its_client_alone_and_is_named(
    boards, config, caplog
):
    board, before = boards[0], settings(boards[0])

    def lose():
        while settings(board) == before:
            time.sleep(0.001)
        for rail in find_rails(Sysfs(board.root)):
            for path in rail.files:
                (board.root / path).unlink()

    losing = threading.Thread(target=lose)
    losing.start()
    devices = [f"jetson:{board.root}", "twin:orin-nano"]
    config = replace(config, per_round=2, min_nodes=2)
    result, _ = reports_of(devices, config)
    losing.join()
    first, second = result.ledger.entries
    assert (first.clients, first.reported, first.failed) == ((0, 1), 1, 1)
    assert (second.clients, second.reported) == ((0, 1), 2)  # it answers when opened again
    assert f"client 0 ({FLEET[0][0]}) failed" in caplog.text
    assert "power sensor does not answer" in caplog.text
    assert settings(open_sysfs(board.root)) == before
