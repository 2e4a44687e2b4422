"""Explanations add up, and say what the clocks do."""

from __future__ import annotations

import pytest

from powerctl.boards import load_board
from powerctl.cost_model import minibatch_cost
from powerctl.errors import ModeNotInSpace
from powerctl.modes import PowerMode
from powerctl.pagoda.counted import CountedModel
from powerctl.pagoda.explanation import explain_minibatch

AGX = load_board("orin-agx")


@pytest.fixture(scope="module")
def counted():
    return CountedModel.of("mobilenetv3", None, "infer")


def explained(counted, mode, batch_size=16):
    counts = counted.counts(batch_size)
    return explain_minibatch(AGX, counted.signature, counted.efficiency, counts, mode)


def test_time_energy_and_shares_add_up(counted):
    mode = AGX.mode("MODE_30W")
    found = explained(counted, mode)
    cost = minibatch_cost(AGX.hardware, counted.signature, *mode.values, 16)
    assert found.time_s == pytest.approx(float(cost.time_s))
    assert found.power_w == pytest.approx(float(cost.power_w))
    assert sum(found.energy_j.values()) == pytest.approx(found.time_s * found.power_w)
    assert sum(layer.time_share for layer in found.layers) == pytest.approx(1)
    assert 0.5 < sum(layer.energy_share for layer in found.layers) <= 1  # the rest is the host's
    bounds = ("compute", "caches", "memory", "launch")
    assert sum(found.share_bound_by(stage) for stage in bounds) == pytest.approx(1)
    assert sum(layer.count.flop for layer in found.layers) == found.flop
    stages = found.stages_s.values()
    assert max(stages) <= found.time_s <= sum(stages)


def test_the_bound_moves_with_the_clock_that_is_lowered(counted):
    low_gpu = PowerMode(12, 2_201_600, AGX.space.gpu_hz[0], 3_199_000_000)
    low_memory = PowerMode(12, 2_201_600, 1_300_500_000, AGX.space.mem_hz[0])
    low_cpu = PowerMode(12, AGX.space.cpu_khz[0], 1_300_500_000, 3_199_000_000)
    assert explained(counted, low_gpu).bound == "compute"
    assert explained(counted, low_memory).bound == "memory"
    assert explained(counted, low_cpu, batch_size=1).bound in ("launch", "host")
    layers = explained(counted, low_memory).layers
    assert layers[0].bound == "memory"


def test_what_does_no_arithmetic_to_speak_of_is_not_bound_by_it(counted):
    low_gpu = PowerMode(12, 2_201_600, AGX.space.gpu_hz[0], 3_199_000_000)
    bounds = {
        layer.bound
        for layer in explained(counted, low_gpu).layers
        if layer.count.kind in ("ReLU", "Hardswish", "BatchNorm2d")
    }
    assert "caches" in bounds and "compute" not in bounds


def test_a_step_says_what_the_neighbour_costs(counted):
    mode = AGX.space.maximum
    found = explained(counted, mode)
    assert [step.axis for step in found.steps] == ["cores", "cpu_khz", "gpu_hz", "mem_hz"]
    slower = next(step for step in found.steps if step.axis == "mem_hz")
    other = explained(counted, PowerMode(*mode.values[:3], slower.value))
    assert 1 + slower.time == pytest.approx(other.time_s / found.time_s)
    assert 1 + slower.power == pytest.approx(other.power_w / found.power_w)
    energy = other.time_s * other.power_w / (found.time_s * found.power_w)
    assert 1 + slower.energy == pytest.approx(energy)
    inside = explained(counted, AGX.mode("MODE_30W"))
    assert len(inside.steps) == 7  # both neighbours, but of the memory, which is at its highest


def test_a_mode_of_another_board_is_refused(counted):
    with pytest.raises(ModeNotInSpace):
        explained(counted, PowerMode(3, 1, 1, 1))


def test_a_convolution_is_bound_by_what_it_runs_on(counted):
    """On tensor cores of an Orin, on CUDA cores of a Xavier, where PyTorch's TF32 is not."""
    counts = counted.counts(16)
    low_gpu = {
        board: PowerMode(8, 1_190_400, board.space.gpu_hz[0], board.space.mem_hz[-1])
        for board in (AGX, load_board("xavier-agx"))
    }
    shares = {}
    for board, mode in low_gpu.items():
        found = explain_minibatch(board, counted.signature, counted.efficiency, counts, mode)
        formats = {each.count.kind: each.number_format for each in found.layers}
        assert formats["Conv2d"] == "tf32" and formats["Linear"] == "fp32"
        ratio = float(found.rooflines["tf32"].peak_flops[0] / found.rooflines["fp32"].peak_flops[0])
        shares[board.name] = found.share_bound_by("compute"), ratio
        assert 0 < found.roofline_s < found.time_s
    assert shares["orin-agx"][1] == 4 and shares["xavier-agx"][1] == 1
    assert shares["xavier-agx"][0] > shares["orin-agx"][0]
