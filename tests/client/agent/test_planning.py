"""The agent plans mode and batch size for the rate at which requests come."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace

import grpc
import pytest

from powerctl.boards import load_board
from powerctl.cost_model import minibatch_cost
from powerctl.errors import InvalidInput
from powerctl.fakes.making import make_fake_board
from powerctl.workload import load_workload
from tests.client.agent.conftest import request
from tests.client.agent.test_rounds import answer, result_of, train_request
from tests.waiting import TIMEOUT_S
from wattfed.client.agent import rpc
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.settings import PlanSettings, read_settings
from wattfed.client.agent.top import describe_plan

pytestmark = pytest.mark.studies

PLAN = PlanSettings(
    power_w=25.0, training="mobilenetv3-train", period_s=0.2, window_s=2.0, quick_s=1.0
)


class Load:
    """Requests at a rate that can be changed, in a thread of their own."""

    def __init__(self, agent, rate_hz: float) -> None:
        self.rate_hz = rate_hz
        self.futures: list[grpc.Future] = []
        self._channel = agent.channel()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        outcomes = [future.exception(TIMEOUT_S) for future in self.futures]
        self._channel.close()
        self.failed = [error for error in outcomes if error is not None]

    def _run(self):
        predict = rpc.InferenceStub(self._channel).Predict
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            due_s += 1 / self.rate_hz  # who was held up makes up for it
            self.futures.append(predict.future(request(deadline_s=TIMEOUT_S), timeout=TIMEOUT_S))


@pytest.fixture(params=["twin:orin-agx", "jetson"])
def planning(request, start, settings, tmp_path):
    """An agent that plans, on the twin and on a fake board, both in real time."""
    device = request.param
    if device == "jetson":
        device = f"jetson:{make_fake_board('orin-agx', '5.1', tmp_path / 'board').root}"
    model = replace(settings.model[0], workload="resnet50-infer", latency_s=0.5)
    return start(settings, device=device, model=(model,), plan=PLAN)


def statuses(agent):
    with agent.channel() as channel:
        give_up_s = time.monotonic() + TIMEOUT_S
        for status in rpc.PowerStub(channel).Telemetry(pb.TelemetryRequest(period_s=0.1)):
            assert time.monotonic() < give_up_s, status
            yield status


def trained(status: pb.Status) -> int:
    """Minibatches of the round."""
    return sum(job.turns for job in status.jobs if job.kind == pb.TRAIN)


def power_w(mode: str, batch_size: int) -> float:
    """Of the dearer of the two that share the device, by the cost model."""
    board, infer = load_board("orin-agx"), load_workload("resnet50-infer")
    jobs = [load_workload("mobilenetv3-train"), infer.with_batch_size(batch_size)]
    cores, *mhz = mode.split("/")  # of whatever release the board has
    values = (int(cores[:-1]), *(float(m) * s for m, s in zip(mhz, (1e3, 1e6, 1e6), strict=True)))
    costs = [minibatch_cost(board.hardware, j.signature, *values, j.batch_size) for j in jobs]
    return max(float(cost.power_w) for cost in costs)


def test_a_load_that_doubles_is_planned_for_within_the_power_and_no_request_is_dropped(planning):
    def train():
        asked = train_request(minibatches=100_000, deadline_s=1e6)
        reports.append(result_of(answer(rpc.RoundsStub(channel), asked, 3 * TIMEOUT_S))[0])

    reports = []
    with planning.channel() as channel:
        round_ = threading.Thread(target=train)
        round_.start()
        with Load(planning, 30.0) as load:
            calm = next(s for s in statuses(planning) if s.plan.rate_hz > 25 and trained(s))
            load.rate_hz *= 2
            calm_hz = calm.plan.rate_hz
            busy = next(
                s
                for s in statuses(planning)
                if s.plan.mode != calm.plan.mode and s.plan.rate_hz > 1.3 * calm_hz
            )
            later = next(s for s in statuses(planning) if trained(s) > trained(busy) + 1)
        cancel = pb.CancelRequest(round_id="7/1/0", reason="enough")
        rpc.RoundsStub(channel).Cancel(cancel, timeout=TIMEOUT_S)
        round_.join()
    assert not load.failed and len(load.futures) > 20
    assert busy.plan.batch_size["constant"] > 1
    assert later.plan.changes > calm.plan.changes
    for plan in (calm.plan, busy.plan):
        assert plan.feasible and power_w(plan.mode, plan.batch_size["constant"]) <= 25.0
        assert "within 25 W" in describe_plan(plan) and "resnet50-infer" in plan.origin
    # the round trained in the modes of the plan, and did not set its own
    assert reports[0].minibatches > 0 and reports[0].stopped == "enough"


def test_a_model_of_which_nothing_is_known_cannot_be_planned_for(start, settings):
    with pytest.raises(InvalidInput, match="workload=.*tables/constant.csv"):
        start(settings, plan=replace(PLAN, training=""))


def test_a_limit_that_no_mode_keeps_is_refused_at_the_start_with_the_least_that_one_does(
    start, settings
):
    model = (replace(settings.model[0], workload="resnet50-infer", latency_s=0.5),)
    asked = {"device": "twin:orin-agx", "model": model}
    with pytest.raises(
        InvalidInput, match="power is 3 W, and orin-agx takes at least .* W"
    ) as told:
        start(settings, plan=replace(PLAN, power_w=3.0), **asked)
    least_w = float(re.search(r"at least ([\d.]+) W", str(told.value))[1])
    with pytest.raises(InvalidInput, match="takes at least"):
        start(settings, plan=replace(PLAN, power_w=least_w - 0.2), **asked)
    start(settings, plan=replace(PLAN, power_w=least_w), **asked)


def test_with_several_models_the_plan_says_which(start, settings, constant):
    other = replace(settings.model[0], name="other")
    with pytest.raises(InvalidInput, match=r"\[plan\].*served: constant, other"):
        start(settings, plan=PLAN, model=(*settings.model, other))


def test_a_plan_is_read_from_the_file_and_flags_go_before(tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text('[plan]\npower_w = 30\ntraining = "resnet18-train"\nwindow_s = 5\n')
    plan = read_settings(file, power_w=25.0).plan
    assert (plan.power_w, plan.training, plan.window_s) == (25.0, "resnet18-train", 5)
