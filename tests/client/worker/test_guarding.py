"""Training under the power guard: a mode that draws more than was predicted is stepped down."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from powerctl.boards import load_board
from powerctl.devices.host import HostDevice
from powerctl.devices.meters import Meter
from powerctl.devices.opening import open_device
from powerctl.devices.twin import Twin
from powerctl.fakes.making import make_fake_board
from powerctl.fulcrum.guard import GuardLimits, Ladder, PowerGuard
from powerctl.fulcrum.interleave import Interleaver
from powerctl.fulcrum.plans import Front, RoundPlan
from powerctl.workload import load_workload
from wattfed.client.agent.round_device import RoundDevice
from wattfed.client.agent.turn_engine import TurnEngine
from wattfed.client.fleet import ClientProfile
from wattfed.client.fleet.fleet import TrainingLimits
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.execution import execute_plan
from wattfed.client.worker.local_client import LocalClient
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes

JOB = load_workload("mobilenetv3-train")
BOARD = load_board("orin-nano")


def front_of(device, believed=1.0):
    """Five modes by falling power; each is believed to draw a share of what it draws."""
    ladder = reversed(device.space.gpu_hz)
    modes = tuple(replace(device.space.maximum, gpu_hz=hz) for hz in ladder)
    costs = [Twin(BOARD).steady(mode, JOB) for mode in modes]
    time_s, power_w = (np.array(column) for column in zip(*costs, strict=True))
    return Front(modes, time_s, believed * time_s * power_w)


def train(device, front, limit_w, minibatches=400, celsius=math.inf, **options):
    guard = PowerGuard(GuardLimits(limit_w, celsius), Ladder(device.space, front))
    plan = RoundPlan((front.segment(0, minibatches),))
    steps = iter(lambda: lambda: None, None)
    return execute_plan(device, JOB, plan, steps, guard=guard, **options)


@pytest.fixture(params=["twin", "jetson"])
def device(request, tmp_path):
    if request.param == "twin":
        yield Twin(BOARD)
        return
    make_fake_board("orin-nano", "5.1", tmp_path / "board")
    with open_device(f"jetson:{tmp_path / 'board'}") as opened:
        yield opened


def test_a_mode_that_draws_more_than_believed_is_stepped_down_at_once(device):
    front = front_of(device, believed=0.8)
    real_w = front.power_w / 0.8
    limit_w = float(real_w[1] + real_w[2]) / 2
    done = train(device, front, limit_w)
    assert done.guard_steps == 1 and done.guard_cause == "power" and not done.stopped
    first, rest = done.segments
    assert (first.mode, rest.mode) == (front.modes[0], front.modes[2])
    assert first.minibatches + rest.minibatches == 400
    assert first.minibatches * first.minibatch_s < 3, "settling, window, minibatches"
    assert rest.settled_power_w <= limit_w
    assert done.peak_power_w > limit_w, "what was broken stays said"


def test_as_long_as_the_prediction_holds_nothing_is_stepped(device):
    front = front_of(device)
    done = train(device, front, float(front.power_w[0]) * 1.1, minibatches=100)
    assert (done.guard_steps, done.guard_cause, len(done.segments)) == (0, "", 1)


def test_time_and_energy_are_kept_in_the_slower_mode_too(device):
    front = front_of(device, believed=0.8)
    limit_w = float(front.power_w[-2]) / 0.8
    whole = train(device, front, limit_w)
    for limit, total in (("time_limit_s", whole.time_s), ("energy_cap_j", whole.energy_j)):
        done = train(device, front, limit_w, **{limit: 0.6 * total})
        spent = done.time_s if limit == "time_limit_s" else done.energy_j
        assert done.guard_steps and 0.5 * total < spent <= 0.6 * total


def test_a_board_that_gets_hot_is_stepped_down_and_cools(tmp_path):
    sysfs = make_fake_board("orin-nano", "6", tmp_path / "board")
    with open_device(f"jetson:{tmp_path / 'board'}") as device:
        front = front_of(device)
        sysfs.heat(95.9)
        assert train(device, front, math.inf, minibatches=100).guard_steps == 0
        sysfs.heat(96.1)  # the board itself slows down from 99 on
        done = train(device, front, math.inf, minibatches=100)
        assert done.guard_steps >= 1 and done.guard_cause == "temperature"
        sysfs.heat(70)
        assert train(device, front, math.inf, minibatches=100, celsius=65).guard_steps >= 1
        assert train(device, front, math.inf, minibatches=100, celsius=75).guard_steps == 0


@pytest.fixture(autouse=True)
def one_thread():
    """A net this small is trained several times as fast by one thread as by all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def round_of(client, server_round=1, **assignment):
    torch.manual_seed(0)
    asked = RoundAssignment(0, 300, **{"power": "fastest", **assignment})
    return client.train(client.task.model(), asked, server_round)


@pytest.fixture
def thirsty(monkeypatch):
    """A client whose piece of silicon draws a third more than any that the predictor knows."""
    monkeypatch.setattr(Twin, "steady", _thirsty(Twin.steady))
    profile = ClientProfile(0, "twin:orin-nano", TrainingLimits(power_w=9.0))
    return LocalClient(RunConfig(), profile, 20, ClientState())


def _thirsty(steady):
    def drawing_more(self, mode, workload):
        time_s, power_w = steady(self, mode, workload)
        return time_s, 1.35 * power_w

    return drawing_more


def test_a_round_reports_the_steps_and_the_next_one_needs_none(thirsty):
    first = round_of(thirsty)
    assert first.guard_steps >= 1 and first.guard_cause == "power" and first.broke_power_limit
    assert first.minibatches == 300 and len(first.modes) == first.guard_steps + 1
    for number in range(2, 6):
        report = round_of(thirsty, number)
    assert report.guard_steps == 0 and not report.broke_power_limit, "it has learned"


def test_blind_training_has_no_guard(thirsty):
    assert round_of(thirsty, power="maxn").guard_steps == 0


def test_where_no_limit_binds_nothing_is_watched(monkeypatch):
    client = LocalClient(
        RunConfig(), ClientProfile(0, "twin:orin-nano", TrainingLimits()), 20, ClientState()
    )
    monkeypatch.setattr(PowerGuard, "observe", None)
    assert round_of(client).guard_steps == 0


class Drawing(Meter):
    """A module that draws 40 W, whatever it does."""

    name = "40 W"

    def energy_j(self):
        return 40 * time.monotonic()


def test_in_an_agent_all_that_the_module_draws_counts_and_not_the_rounds_own_turns():
    device = HostDevice(BOARD, Drawing())
    engine = TurnEngine(device, Interleaver())
    engine.start()
    turns = RoundDevice(engine, "round 1", JOB, 0.001)
    front = front_of(device)
    guard = PowerGuard(GuardLimits(30.0, window_s=0.1, settling_s=0.05), Ladder(BOARD.space, front))
    try:
        done = execute_plan(
            turns,
            JOB,
            RoundPlan((front.segment(0, 60),)),
            iter(lambda: lambda: None, None),
            guard=guard,
            progress=lambda *_: time.sleep(0.005),  # others have their turns
        )
    finally:
        turns.close()
        engine.stop("the test is over")
    assert done.energy_j < 10 * done.time_s, "of its own it takes little"
    assert done.peak_power_w == pytest.approx(40, rel=0.01)
    assert done.guard_steps >= 1 and done.minibatches == 60
    assert done.segments[1].mode in front.modes and device.mode() == BOARD.space.maximum
