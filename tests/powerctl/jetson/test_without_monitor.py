"""Boards without a power monitor: modes are set, work is done, and energies are estimates."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from benchmarks.board_reads import DAMAGES, damaged
from powerctl.cli import cli
from powerctl.commands.jetson_board import doctor
from powerctl.cost_model import minibatch_cost
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.doctor.torch_here import TorchHere
from powerctl.errors import DeviceUnavailable
from powerctl.profiler import Procedure, measure_mode
from powerctl.workload import load_workload
from wattfed.client.fleet import ClientProfile
from wattfed.client.fleet.fleet import TrainingLimits
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.local_client import LocalClient
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.run_config import RunConfig

NO_TORCH = TorchHere(None, None, None, None, None, ())
JOB = load_workload("resnet18-train")


@pytest.fixture
def unmetered(fake):
    """An Orin Nano on a carrier board of somebody's own, without INA3221."""
    board = fake("orin-nano", "6")
    (board.root / "sys/bus/i2c/drivers/ina3221/1-0040").unlink()
    return board


def test_modes_are_set_and_work_is_done_with_estimated_energy(unmetered, caplog):
    before = unmetered.settings()
    with FakeJetson(unmetered.root) as device:
        assert not device.measures_power
        assert device.energy_source == (
            "estimate: cost model of orin-nano, as there is no INA3221 power monitor"
        )
        (warning,) = caplog.records
        assert "energies are no measurements" in warning.message
        device.apply(device.space.maximum)
        assert unmetered.mode() == device.space.maximum
        start_s, start_j = device.now(), device.energy_j()
        busy_s = sum(device.execute(JOB) for _ in range(50))
        busy_w = (device.energy_j() - start_j) / (device.now() - start_s)
        assert busy_s == pytest.approx(device.now() - start_s)
        start_j = device.energy_j()
        device.idle(10)
        idle_w = (device.energy_j() - start_j) / 10
        assert 2 < idle_w < busy_w < 40
    assert unmetered.settings() == before


def test_estimates_are_those_of_the_cost_model(unmetered):
    """To the few per cent by which the twin's time departs from it."""
    with FakeJetson(unmetered.root) as device:
        device.apply(device.space.maximum)
        start_s, start_j = device.now(), device.energy_j()
        while device.now() - start_s < 20:
            device.execute(JOB)
        power_w = (device.energy_j() - start_j) / (device.now() - start_s)
        cost = minibatch_cost(
            device.board.hardware, JOB.signature, *device.space.maximum.values, JOB.batch_size
        )
        assert power_w == pytest.approx(float(cost.power_w), rel=1e-6)


def test_what_is_estimated_is_not_measured(unmetered):
    with FakeJetson(unmetered.root) as device:
        with pytest.raises(DeviceUnavailable, match="only time .*no INA3221 power monitor.*table"):
            measure_mode(device, JOB, device.space.maximum, Procedure())
        assert device.sysfs.writes == 0


def test_a_profile_is_refused_in_one_line_and_nothing_is_changed(unmetered, tmp_path):
    before = unmetered.settings()
    words = "profile --workload resnet18-train --modes 2 --device"
    arguments = [f"jetson:{unmetered.root}", "--out", str(tmp_path / "run.jsonl")]
    done = CliRunner().invoke(cli, [*words.split(), *arguments])
    assert isinstance(done.exception, DeviceUnavailable)
    assert "power cannot be measured here" in str(done.exception)
    assert unmetered.settings() == before


@pytest.mark.parametrize("has_monitor", [False, True])
def test_a_client_trains_all_the_same_and_learns_from_measured_energies_alone(
    unmetered, fake, has_monitor
):
    root = fake("orin-nx", "6").root if has_monitor else unmetered.root
    profile = ClientProfile(2, f"jetson:{root}", TrainingLimits(power_w=25), unit=7)
    one = LocalClient(RunConfig(), profile, 20, ClientState())
    torch.manual_seed(0)
    wanted = one.offer().minibatches
    report = one.train(one.task.model(), RoundAssignment(2, wanted, power="slack"), 1)
    assert report.minibatches == report.planned_minibatches == wanted
    assert report.energy_j == pytest.approx(report.planned_energy_j, rel=0.2)
    assert one.state.spent_j == report.energy_j > 0
    with FakeJetson(root) as device:
        assert (one._predictor(device).n_measured_ > 0) == has_monitor


def test_the_doctor_lets_modes_be_set_and_says_that_power_is_not_measured(unmetered, monkeypatch):
    monkeypatch.setattr("powerctl.doctor.torch_here.look_at_torch", lambda jetpack: NO_TORCH)
    done = CliRunner().invoke(doctor, ["--root", str(unmetered.root)])
    assert done.exit_code == 0, done.output
    assert "modes can be applied here" in done.output
    assert "power:\n  no power of the module: there is no INA3221 power monitor" in done.output
    done = CliRunner().invoke(doctor, ["--root", str(unmetered.root), "--json"])
    said = json.loads(done.output)
    assert said["ok"] and said["total_w"] is None and said["total_from"] is None


def test_a_total_that_lacks_a_rail_is_none(fake, monkeypatch):
    monkeypatch.setattr("powerctl.doctor.torch_here.look_at_torch", lambda jetpack: NO_TORCH)
    board = fake("orin-agx", "6")
    rail = f"{board.kernel.layout.monitor('1-0040')}/curr2_input"
    with damaged(rail, DAMAGES["EAGAIN"]):
        done = CliRunner().invoke(doctor, ["--root", str(board.root), "--json"])
    said = json.loads(done.output)
    assert said["ok"] and said["total_w"] is None
    assert "rail VDD_CPU_CV does not answer" in said["unmeasured"][0]["what"]
