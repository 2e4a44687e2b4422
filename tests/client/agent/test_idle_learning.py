"""The agent measures modes of a task in idle time: within budgets, and behind all else."""

from __future__ import annotations

import json
import math
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from powerctl.boards import load_board
from powerctl.devices.opening import open_device
from powerctl.devices.twin import Twin
from powerctl.errors import InvalidInput, TaskFailed
from powerctl.fulcrum.interleave import Interleaver
from powerctl.fulcrum.turns import ServiceSpec
from powerctl.powertrain.correction import SignaturePredictor
from powerctl.workload import load_workload
from tests.waiting import TIMEOUT_S, await_state
from wattfed.client.agent.cli import cli
from wattfed.client.agent.engine_jobs import EngineJob
from wattfed.client.agent.idle_device import ServiceRoom
from wattfed.client.agent.idle_learning import IdleLearner
from wattfed.client.agent.idle_modes import PROCEDURE
from wattfed.client.agent.idle_task import IdleTask, idle_task
from wattfed.client.agent.opening import KeptDevice
from wattfed.client.agent.own_tasks import OwnTasks
from wattfed.client.agent.settings import IdleSettings, Settings, read_settings
from wattfed.client.agent.turn_engine import TurnEngine
from wattfed.client.worker.cost_models import CostModels

pytestmark = pytest.mark.studies

STEPWISE = Path(__file__).resolve().parents[2] / "powerctl/task/tasks/stepwise.py"
BOARD = load_board("orin-nano")
COUNTED = replace(load_workload("resnet18-train"), name="mine@01234567-b16", source="counted")
TRUE = replace(  # what the work really is: not as it was counted
    COUNTED,
    name="true",
    signature=replace(
        COUNTED.signature,
        flop_per_sample=1.25 * COUNTED.signature.flop_per_sample,
        host_cycles_per_sample=0.8 * COUNTED.signature.host_cycles_per_sample,
    ),
)
SETTINGS = IdleSettings(task="mine", modes=4, quiet_s=0.05)
FINISHED = ("has measured", "has spent", "has failed")


class Unlike(Twin):
    """A twin on which the task is other work than was counted of it."""

    def execute(self, workload, step=None):
        return super().execute(TRUE if workload.name == COUNTED.name else workload, step)


class Step:
    """A minibatch of a model that is nobody else's."""

    def __init__(self) -> None:
        self.runs, self.is_closed = 0, False

    def __call__(self) -> None:
        self.runs += 1

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def learn(tmp_path):
    """Start learners on engines with a virtual clock; all end with the test."""
    running = []

    def start(settings=SETTINGS, device=None, step=Step, folder="state", **changes):
        device = KeptDevice(device or Unlike(BOARD), tmp_path / "found.json")
        engine = TurnEngine(device, Interleaver())
        engine.start()
        costs = CostModels(tmp_path / folder, "twin:orin-nano")
        learner = IdleLearner(
            engine, costs, replace(settings, **changes), lambda: IdleTask(COUNTED, step)
        )
        running.append((learner, engine))
        learner.start()
        return SimpleNamespace(
            learner=learner,
            engine=engine,
            device=device,
            costs=costs,
            found=device.mode(),
            table=lambda: costs.measured(BOARD, COUNTED).read(),
        )

    yield start
    for learner, engine in running:
        learner.close()
        engine.stop("the test is over")


def finished(one) -> str:
    """What a learner says once it has no more to do."""
    await_state(lambda: one.learner.doing.startswith(FINISHED))
    return one.learner.doing


def error_of(predictor) -> float:
    """Mean relative error of predicted times, over all modes."""
    found = predictor.predict(BOARD.space.arrays).time_s
    true = SignaturePredictor(BOARD, TRUE).predict(BOARD.space.arrays).time_s
    return float(np.abs(found / true - 1).mean())


def test_a_few_modes_are_measured_and_predict_better_than_what_was_counted(learn):
    steps = []
    one = learn(step=lambda: steps.append(Step()) or steps[-1])
    assert finished(one).startswith("has measured 4 modes in ")
    table = one.table()
    assert len(table.rows) == 4 and {row.origin for row in table.rows} == {"idle"}
    assert 0 < table.spent_s < SETTINGS.time_s and 0 < table.spent_j < SETTINGS.energy_j
    counted = error_of(SignaturePredictor(BOARD, COUNTED))
    assert error_of(one.costs.predictor(BOARD, COUNTED)) < 0.5 * counted
    assert one.device.mode() == one.found and one.device.is_untouched
    assert not one.engine.state().jobs
    one.learner.close()
    assert steps[0].runs > 40 and steps[0].is_closed


def test_it_goes_on_after_a_restart_with_what_is_left_to_do(learn):
    first = learn(modes=2)
    finished(first)
    before = first.table()
    first.learner.close()
    second = learn(modes=4)
    assert finished(second).startswith("has measured 4 modes")
    assert second.table().rows[:2] == before.rows and second.table().spent_s > before.spent_s


@pytest.mark.parametrize(
    ("budget", "spent"), [({"time_s": 8.0}, "spent_s"), ({"energy_j": 60.0}, "spent_j")]
)
def test_it_stays_within_its_budget_of_time_and_of_energy(learn, budget, spent):
    one = learn(modes=20, **budget)
    assert finished(one).startswith("has spent its budget")
    slowest = SignaturePredictor(BOARD, TRUE).predict(BOARD.space.arrays)
    last = {"spent_s": slowest.time_s.max(), "spent_j": slowest.energy_j.max()}[spent]
    (allowed,) = budget.values()
    assert allowed <= getattr(one.table(), spent) <= allowed + 1.5 * last


def test_nothing_is_measured_above_a_limit_of_power(learn):
    one = learn(power_w=8.0, modes=8)
    assert finished(one).startswith("has measured 8 modes")
    assert max(row.power_w for row in one.table().rows) < 8.0


class Hungry(Unlike):
    """A twin that draws half as much again as any is expected to."""

    def _minibatch(self, workload):
        time_s, power_w = super()._minibatch(workload)
        return time_s, 1.5 * power_w


def test_a_mode_that_draws_more_than_was_expected_is_left_and_teaches(learn):
    one = learn(device=Hungry(BOARD), power_w=8.0, modes=6)
    finished(one)
    rows = one.table().rows
    over = [row for row in rows if row.power_w > 8.0]
    assert over and max(row.minibatches for row in over) < PROCEDURE.min_minibatches
    assert rows[-1].power_w < max(row.power_w for row in over)


class Throttled(Unlike):
    """A twin that throttles, as long as it is told to."""

    why = "over-current (oc3_event_cnt 0 -> 1)"
    looks = 0

    def watch_throttling(self):
        def look():
            Throttled.looks += 1
            return self.why

        return look


def test_what_was_measured_while_the_board_throttled_is_not_kept(learn):
    one = learn(device=Throttled(BOARD))
    await_state(lambda: one.learner.doing.startswith("waits: throttling: over-current"))
    await_state(lambda: one.device.is_untouched)
    assert not one.table().rows and one.device.mode() == one.found


class Hot(Unlike):
    """A twin that is hotter than it may be."""

    def excess_c(self, limit_c=math.inf):
        return 2.0


def test_nothing_is_measured_on_a_board_that_is_too_hot(learn):
    one = learn(device=Hot(BOARD))
    await_state(lambda: one.learner.doing == "waits: too hot")
    assert not one.table().rows


def test_a_round_finds_the_device_as_it_was_and_has_it_for_itself(learn):
    stepped = threading.Event()

    class Telling(Step):
        def __call__(self):
            super().__call__()
            stepped.set()

    steps = []
    one = learn(step=lambda: steps.append(Telling()) or steps[-1], modes=20)
    assert stepped.wait(TIMEOUT_S)
    with one.learner.away():
        assert one.device.mode() == one.found and one.device.is_untouched
        await_state(lambda: one.learner.doing == "waits: a round")
        assert not one.engine.state().jobs
        runs = sum(step.runs for step in steps)
        await_state(lambda: all(step.is_closed for step in steps))  # a round may need the memory
        assert sum(step.runs for step in steps) == runs
        stepped.clear()
    assert stepped.wait(TIMEOUT_S)


@pytest.mark.parametrize("error", [TaskFailed("my_task.py: train raised KeyError: 'x'"), OSError()])
def test_a_task_that_fails_ends_nothing_but_its_measuring(learn, error):
    def fail():
        raise error

    one = learn(step=lambda: SimpleNamespace(__call__=None, close=lambda: None) and fail())
    assert finished(one).startswith("has failed, and tries again later")
    assert one.device.mode() == one.found and not one.engine.state().jobs


def test_without_a_number_of_modes_nothing_is_measured(learn):
    one = learn(modes=0)
    assert finished(one) == "has measured 0 modes in 0 s and 0 J"


class Service(EngineJob):
    """An inference service that nobody asks."""

    name = "camera"

    def workload(self, size):
        return load_workload("mobilenetv3-infer").with_batch_size(size)

    def run(self, tickets):
        return [None] * len(tickets)


@pytest.fixture
def serving():
    """An engine with a service whose batches take 10 ms in MAXN, and must answer in 100 ms."""
    engine = TurnEngine(open_device("twin:orin-nano"), Interleaver())
    engine.add_service(Service(), ServiceSpec("camera", 0.1, 1, {1: 0.01}))
    return engine


def test_only_modes_in_which_every_latency_is_kept_beside_a_minibatch_are_measured(serving):
    room = ServiceRoom(serving, {})
    fast = serving.device.mode()
    slow = BOARD.space.minimum
    assert room.fits(fast, 0.01) and not room.fits(fast, 0.1)
    assert not room.fits(slow, 0.001)
    assert not ServiceRoom(serving, {"camera": 45.0}).fits(fast, 0.01)  # they came like that once
    slower = replace(fast, gpu_hz=BOARD.space.gpu_hz[-2])
    (expected,) = room.services_in(slower)
    assert expected.time_s[1] == pytest.approx(0.01 * fast.gpu_hz / slower.gpu_hz)
    slower = replace(fast, cores=2, cpu_khz=BOARD.space.cpu_khz[-2])  # of both together
    (expected,) = room.services_in(slower)
    share = slower.cores * slower.cpu_khz / fast.cores / fast.cpu_khz
    assert expected.time_s[1] == pytest.approx(0.01 / share)
    assert not room.has_changed()
    serving.remove("camera")
    assert room.has_changed() and ServiceRoom(serving, {}).fits(slow, 9.0)


def test_a_task_must_have_been_added_and_its_model_stays_as_it_is(tmp_path, monkeypatch):
    code = """
import torch
from torch import nn

NET = nn.Linear(4, 2)

def get_model():
    return NET

def load_data(partition_id, batch_size):
    return [(torch.randn(batch_size, 4), torch.zeros(batch_size).long())] * (2 + partition_id)

def train_step(model, batch, optimizer):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss

def make_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)

def test(model, loader):
    return {"accuracy": 0.0}
"""
    path = tmp_path / "shares_its_model.py"
    path.write_text(code)
    monkeypatch.setenv("POWERCTL_HOME", str(tmp_path / "home"))
    tasks = OwnTasks(tmp_path)
    with pytest.raises(InvalidInput, match="no task 'shares_its_model', but none; add it with"):
        idle_task("shares_its_model", {}, tasks)
    added = tasks.add(str(path))
    found = idle_task("shares_its_model", {"batch-size": 8, "partition-id": 1}, tasks)
    assert found.workload.name.startswith("shares_its_model@")
    assert found.workload.batch_size == 8 and found.workload.source.startswith("counted")
    step = found.step()
    model = step._task.call("make_model", {})
    before = model.weight.clone()
    for _ in range(5):
        step()
    step.close()
    assert bool((model.weight == before).all())
    path.write_text(code + "\n# changed\nmore = 1\n")
    with pytest.raises(InvalidInput, match="has changed in"):
        idle_task(added.name, {}, tasks)


def test_settings_say_what_is_measured_and_a_flag_goes_before_them(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text('[idle]\ntask = "mine"\nmodes = 3\n[idle.settings]\nbatch-size = 4\n')
    assert read_settings(path).idle == IdleSettings("mine", {"batch-size": 4}, 3)
    assert read_settings(path, task="other").idle.task == "other"
    assert not Settings().idle.task
    path.write_text("[idle]\nmodes = -1\n")
    with pytest.raises(InvalidInput, match=r"\[idle\]: modes is -1 and must be"):
        read_settings(path)


def test_status_says_what_is_known_of_a_task_from_what_and_how_sure(start, settings):
    twin = replace(settings, device="twin:orin-nano", model=())
    idle = IdleSettings(task="mine", quiet_s=0.05)
    agent = start(twin, idle=idle)
    measured = agent._agent._cost_models.measured(BOARD, COUNTED)
    agent._agent._idle.measured = measured  # as if it were loaded

    def status():
        told = CliRunner().invoke(cli, ["status", "--socket", agent.socket])
        assert told.exit_code == 0, told.output
        return told.output

    await_state(lambda: "idle time: has failed" in status())  # no such task was added
    assert "mine@01234567-b16  counted" in status()
    from tests.client.worker.test_measured_task import row

    with suppress(InvalidInput):
        measured.record([replace(row(i), origin="idle" if i else "round") for i in range(3)])
    line = next(one for one in status().splitlines() if one.startswith("mine@"))
    assert line.split()[1:4] == ["measured", "3", "2"]


def test_an_agent_measures_what_was_added_to_it_and_an_agent_after_it_knows(
    start, settings, tmp_path, monkeypatch
):
    monkeypatch.setenv("POWERCTL_HOME", str(tmp_path / "home"))
    OwnTasks(tmp_path).add(str(STEPWISE))
    twin = replace(settings, device="twin:orin-nano")
    agent = start(twin, idle=IdleSettings(task="stepwise", modes=1, quiet_s=0.05))

    def status(one):
        told = CliRunner().invoke(cli, ["status", "--json", "--socket", one.socket])
        assert told.exit_code == 0, told.output
        return json.loads(told.output)["status"]

    found = status(agent)["mode"]
    await_state(lambda: status(agent)["idle"].startswith("has measured 1 modes"))
    (known,) = status(agent)["tasks"]
    assert known["origin"] == "measured" and known["idle_modes"] == 1
    assert known["workload"].startswith("stepwise@") and status(agent)["mode"] == found
    agent.close()
    board = tmp_path / "measured" / "twin-orin-nano"
    assert [file.stem for file in board.glob("*.json")] == [known["workload"]]
    later = start(twin, idle=IdleSettings(task="stepwise", modes=1, quiet_s=0.05))
    await_state(lambda: status(later).get("tasks") == [known])
