"""The Jetson device on a fake board: the profiler and a client's round run on it unchanged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from powerctl.boards import load_board
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.devices.twin import Twin
from powerctl.errors import InvalidInput, ModeNotInSpace
from powerctl.fakes.making import make_fake_board
from powerctl.profiler import FixedModes, Procedure, profile
from powerctl.workload import load_workload
from tests.powerctl.jetson.conftest import folder, settings  # noqa: F401, a fixture
from tests.powerctl.profiler.memory_log import MemoryLog
from wattfed.client.fleet import ClientProfile
from wattfed.client.fleet.fleet import TrainingLimits
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.local_client import LocalClient
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.run_config import RunConfig

JOB = load_workload("resnet18-train")


@pytest.fixture
def root(folder):  # noqa: F811
    return make_fake_board("orin-agx", "5.1", folder / "board").root


def test_time_and_energy_are_the_twins(root):
    twin = Twin(load_board("orin-agx", "35.3"), unit=3, random_state=4)
    mode = twin.space.parse("8c/1190/612/2133")
    with FakeJetson(root, unit=3, random_state=4) as device:
        for each in (twin, device):
            each.apply(mode)
            each.idle(5)
        starts = [(each.now(), each.energy_j()) for each in (twin, device)]
        times = [[each.execute(JOB) for _ in range(40)] for each in (twin, device)]
        assert times[1] == pytest.approx(times[0])
        took = [each.now() - start for each, (start, _) in zip((twin, device), starts, strict=True)]
        used = [e.energy_j() - start for e, (_, start) in zip((twin, device), starts, strict=True)]
        assert took[1] == pytest.approx(took[0])
        assert used[1] == pytest.approx(used[0], rel=0.01)  # rails show whole milliamperes


def test_throttling_shows_in_time_and_power(root):
    with FakeJetson(root) as device:
        device.apply(device.space.maximum)
        fast = device.execute(JOB)
        device._controller._verification = None  # nobody looks
        device.sysfs.throttle(gpu_hz=306_000_000, cpu_khz=729_600)
        assert device.execute(JOB) > 1.5 * fast


def test_what_slows_it_down_is_said_from_when_it_is_watched_on(root):
    with FakeJetson(root) as device:
        device.sysfs.throttle(over_current=True)
        throttled = device.watch_throttling()
        assert throttled() == ""  # what was before says nothing of now
        device.sysfs.throttle(over_current=True)
        assert "over-current" in throttled()
        throttled = device.watch_throttling()
        device.sysfs.throttle(gpu_hz=306_000_000)
        assert "slows down" in throttled()
    assert Twin(load_board("orin-nano")).watch_throttling()() == ""


def test_the_profiler_runs_unchanged(root):
    before = settings(FakeJetson(root).sysfs)
    with FakeJetson(root, random_state=1) as device:
        rng = np.random.default_rng(0)
        modes = [device.space.mode(int(i)) for i in rng.choice(len(device.space), 6)]
        log = MemoryLog()
        profile(device, JOB, FixedModes(modes), log, procedure=Procedure())
        twin = Twin(device.board, random_state=1)
        for entry in log.entries:
            time_s, power_w = twin.steady(entry.mode, JOB)
            assert entry.precise
            assert entry.time_s == pytest.approx(time_s, rel=0.03)
            assert entry.power_w == pytest.approx(power_w, rel=0.03)
        assert settings(device.sysfs) == before, "the profiler restores"


def test_a_clients_round_runs_unchanged(root, monkeypatch):
    opened = []

    def open_device(spec, *, unit=0, random_state=0, noise=None):
        opened.append(spec)
        return FakeJetson(root, unit=unit, random_state=random_state)

    monkeypatch.setattr("wattfed.client.worker.local_client.open_device", open_device)
    before = settings(FakeJetson(root).sysfs)
    profile_of = ClientProfile(2, f"jetson:{root}", TrainingLimits(power_w=25), unit=7)
    one = LocalClient(RunConfig(), profile_of, 20, ClientState())
    torch.manual_seed(0)
    wanted = one.offer().minibatches
    report = one.train(one.task.model(), RoundAssignment(2, wanted, power="slack"), 1)
    assert report.minibatches == report.planned_minibatches == wanted
    assert report.time_s == pytest.approx(report.planned_time_s, rel=0.2)
    assert report.energy_j == pytest.approx(report.planned_energy_j, rel=0.2)
    assert not report.broke_power_limit
    assert opened and settings(FakeJetson(root).sysfs) == before


def test_what_it_cannot_do_is_said(root):
    with FakeJetson(root) as device:
        with pytest.raises(ModeNotInSpace, match="powerctl modes"):
            device.apply(load_board("orin-nano").space.maximum)
        with pytest.raises(InvalidInput, match="idle"):
            device.idle(-1)
