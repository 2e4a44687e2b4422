"""What people see of an agent: its power and limit, its jobs, also those that have left."""

from __future__ import annotations

import pytest

from tests.client.agent.conftest import TIMEOUT_S
from wattfed.client.agent import rpc
from wattfed.client.agent.cli import main
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.top import live_lines
from wattfed.client.gate import Gate


def test_the_status_has_watts_a_limit_and_the_job_that_has_left_the_gate(call, agent):
    with Gate("camera", socket=agent.socket) as gate, gate.minibatch("infer"):
        pass
    shown = call(main, "status", "--socket", agent.socket).stdout
    assert " W, no limit (--power), " in shown.splitlines()[1]
    (camera,) = [line for line in shown.splitlines() if line.startswith("gate:camera:")]
    assert "(left)" in camera and camera.split()[3] == "1"


def test_top_in_a_pipe_is_one_frame_with_rates(call, agent):
    shown = call(main, "top", "--every", "0.1s", "--socket", agent.socket)
    assert shown.returncode == 0
    (constant,) = [line for line in shown.stdout.splitlines() if line.startswith("constant ")]
    assert constant.split()[2] == "0"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_narrow_terminal_has_fewer_columns_and_whole_headings(agent, width):
    with agent.channel() as channel:
        status = rpc.PowerStub(channel).GetStatus(pb.StatusRequest(), timeout=TIMEOUT_S)
    status.jobs[0].name = "gate:a-camera-at-the-door:1"
    table = live_lines(status, None, width)[4:]
    assert max(map(len, table)) <= width
    assert all(heading in table[0] for heading in ("job", "rate/s", "p99 ms", "budget"))
    assert ("turns/s" in table[0]) == (width == 200)
