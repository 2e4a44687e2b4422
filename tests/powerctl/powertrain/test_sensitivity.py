from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.boards import board_names, load_board
from powerctl.cost_model import Hardware, Signature, minibatch_cost
from powerctl.modes import ModeArrays
from powerctl.powertrain.prior import ACTIVITIES, BOUNDS, SHAPES, SIZES, WATTS
from powerctl.powertrain.sensitivity import Sensitivity, sensitivity
from powerctl.workload import load_workload, workload_names

NAMES = (*SIZES, *SHAPES, *ACTIVITIES, *WATTS)
STEP = 1e-5


def scaled(
    hardware: Hardware, signature: Signature, name: str, factor: float
) -> tuple[Hardware, Signature]:
    """The cost model with one parameter multiplied."""
    if name in WATTS:
        return replace(hardware, **{name: factor * getattr(hardware, name)}), signature
    return hardware, replace(signature, **{name: factor * getattr(signature, name)})


def logs(
    hardware: Hardware, signature: Signature, modes: ModeArrays, batch_size: object
) -> np.ndarray:
    cost = minibatch_cost(hardware, signature, *modes, batch_size)
    return np.log([cost.time_s, cost.power_w])


def differences(
    hardware: Hardware, signature: Signature, modes: ModeArrays, batch_size: object, *names: str
) -> np.ndarray:
    """Central differences of log time and log power when the named parameters grow together."""
    ends = []
    for sign in (1, -1):
        model = hardware, signature
        for name in names:
            model = scaled(*model, name, np.exp(sign * STEP))
        ends.append(logs(*model, modes, batch_size))
    return (ends[0] - ends[1]) / (2 * STEP)


@st.composite
def cost_models(draw) -> tuple[Hardware, Signature, ModeArrays, np.ndarray]:
    """Shipped boards and workloads with every free parameter moved; modes and batch sizes."""
    board = load_board(draw(st.sampled_from(board_names())))
    model = board.hardware, load_workload(draw(st.sampled_from(workload_names()))).signature
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for name in NAMES:
        model = scaled(*model, name, np.exp(0.4 * rng.standard_normal()))
    for name in set(BOUNDS) & set(SHAPES):
        value = np.clip(getattr(model[1], name), *BOUNDS[name])
        model = model[0], replace(model[1], **{name: float(value)})
    waiting = draw(st.sampled_from((0.0, 0.6, 1.0)))
    model = model[0], replace(model[1], host_wait_share=waiting)
    modes = board.space.arrays.take(rng.integers(0, len(board.space), 6))
    return *model, modes, 2.0 ** rng.integers(0, 8, 6)


@given(cost_models())
def test_slopes_are_the_derivatives_by_the_logarithm_of_each_parameter(model):
    answer = sensitivity(*model, NAMES)
    for row, name in enumerate(NAMES):
        time, power = differences(*model, name)
        np.testing.assert_allclose(answer.time_slopes[row], time, atol=1e-7, err_msg=name)
        np.testing.assert_allclose(answer.power_slopes[row], power, atol=1e-7, err_msg=name)


@given(cost_models())
def test_to_flop_and_to_host_move_fixed_and_per_sample_parts_together(model):
    answer = sensitivity(*model, ())
    flop = differences(*model, "flop", "flop_per_sample")
    host = differences(*model, "host_cycles", "host_cycles_per_sample")
    np.testing.assert_allclose(answer.to_flop, flop, atol=1e-7)
    np.testing.assert_allclose(answer.to_host, host, atol=1e-7)


@given(cost_models())
def test_shares_say_how_far_the_host_binds_and_how_much_power_the_work_adds(model):
    answer = sensitivity(*model, ())
    np.testing.assert_allclose(answer.host_share, answer.to_host[0], atol=1e-12)
    active = differences(*model, *ACTIVITIES)[1]
    np.testing.assert_allclose(answer.active_share, active, atol=1e-7)
    for share in (answer.host_share, answer.active_share):
        assert np.all((share >= 0) & (share <= 1))


@given(cost_models())
def test_log_time_and_log_power_are_the_cost_models(model):
    answer = sensitivity(*model, ())
    np.testing.assert_allclose([answer.log_time, answer.log_power], logs(*model), rtol=1e-12)


@pytest.mark.parametrize("names", [(), ("flop_per_sample",), NAMES])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_there_is_a_row_per_parameter_and_a_column_per_mode(names, n):
    board, workload = load_board("orin-agx"), load_workload("resnet18-train")
    modes = board.space.arrays.take(np.arange(n))
    answer: Sensitivity = sensitivity(board.hardware, workload.signature, modes, 16, names)
    assert answer.time_slopes.shape == answer.power_slopes.shape == (len(names), n)
    assert answer.to_flop.shape == answer.to_host.shape == (2, n)
    assert answer.log_time.shape == answer.host_share.shape == answer.active_share.shape == (n,)
