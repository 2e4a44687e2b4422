from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.devices.opening import open_device
from powerctl.powertrain.correction import SignaturePredictor
from powerctl.workload import load_workload
from wattfed.client.worker.mode_options import UNLEARNED, mode_options
from wattfed.client.worker.serving import RequestStream, ServedRequests, training_options

TRAIN, INFER = load_workload("mobilenetv3-train"), load_workload("mobilenetv3-infer")


def choices(device):
    return mode_options(SignaturePredictor, device.board, device.space, TRAIN)


def choices_beside(device, rate_hz, latency_s, power_w=np.inf):
    service = RequestStream(INFER, rate_hz, latency_s)
    return training_options(choices(device), service, UNLEARNED, power_w)


@given(
    st.sampled_from(["orin-agx", "orin-nx", "xavier-agx", "orin-nano"]),
    st.floats(0.1, 60),
    st.floats(0.3, 3),
    st.floats(10, 60),
    st.integers(0, 50),
    st.floats(0, 1),
)
def test_no_mode_that_is_offered_answers_too_late_or_draws_too_much(
    board, rate_hz, latency_s, power_w, unit, which
):
    """On any unit, with its noise, and whatever point of the front it is."""
    device = open_device(f"twin:{board}", unit=unit, random_state=unit)
    found = choices_beside(device, rate_hz, latency_s, power_w)
    if not len(found.front):
        return
    at = int(which * (len(found.front) - 1))
    serving, served = found.on(device)
    serving.apply(found.front.modes[at])
    start_s, minibatches = serving.now(), 60
    own_s = [serving.execute(TRAIN) for _ in range(minibatches)]
    assert max(served.latencies_s, default=0.0) <= latency_s
    steady_w = [device.steady(serving.mode(), workload)[1] for workload in (TRAIN, INFER)]
    assert max(steady_w) <= power_w
    took_s = serving.now() - start_s
    assert took_s >= sum(own_s)
    assert took_s / minibatches <= 1.3 * found.front.time_s[at]


def test_what_requests_take_is_not_the_training_s():
    device = open_device("twin:orin-agx")
    found = choices_beside(device, 40, 1.0)
    serving, served = found.on(device)
    serving.apply(found.front.modes[0])
    for _ in range(100):
        serving.execute(TRAIN)
    assert served.energy_j > 0
    assert serving.energy_j() + served.energy_j == pytest.approx(device.energy_j())
    assert serving.energy_j() / 100 == pytest.approx(found.front.energy_j[0], rel=0.15)
    told = served.report()
    assert 0 < told["inference_p99_s"] <= told["inference_budget_s"] == 1.0


def test_requests_leave_less_time_and_rare_ones_hardly_any():
    device = open_device("twin:orin-agx")
    alone_s = choices(device).front(UNLEARNED, np.inf).time_s[0]
    rare, often = (choices_beside(device, rate, 1.0).front.time_s[0] for rate in (0.5, 50))
    assert alone_s < rare < 1.05 * alone_s < often


def test_where_no_mode_is_fast_enough_there_is_no_choice_and_maxn_is_late():
    device = open_device("twin:orin-nano")
    found = choices_beside(device, 20, 0.3)
    assert not len(found.front)
    serving, served = found.on(device)
    for _ in range(50):
        serving.execute(TRAIN)
    told = served.report()
    assert told["inference_p99_s"] > told["inference_budget_s"]
    assert serving.now() / 50 == pytest.approx(found.maxn.time_s, rel=0.2)


def test_a_preset_is_held_for_requests_too_and_offered_to_no_other_policy():
    device = open_device("twin:orin-agx")
    alone, often = (choices_beside(device, rate, 1.0, 25.0) for rate in (0.0, 20))
    assert alone.preset.mode == often.preset.mode == device.board.preset("15W").mode
    assert often.preset.time_s > 1.1 * alone.preset.time_s
    assert len(often.front) and often.preset.mode not in often.front.modes
    serving, _ = often.on(device)
    serving.apply(often.preset.mode)
    for _ in range(50):
        serving.execute(TRAIN)
    assert serving.now() / 50 == pytest.approx(often.preset.time_s, rel=0.2)


def test_without_requests_the_device_is_itself():
    device = open_device("twin:orin-nx")
    found = choices_beside(device, 0.0, 1.0)
    assert found.on(device) == (device, ServedRequests())
    alone = choices(device).front(UNLEARNED, np.inf)
    assert found.front.modes == alone.modes
    assert np.array_equal(found.front.time_s, alone.time_s)
    assert np.array_equal(found.front.energy_j, alone.energy_j)
