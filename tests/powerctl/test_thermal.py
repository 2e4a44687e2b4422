from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.devices.heated import HeatedDevice
from powerctl.devices.opening import open_device
from powerctl.thermal import Thermal
from powerctl.workload import load_workload

BOARD = Thermal(ambient_c=25, k_per_w=2, tau_s=100, throttle_c=90)
WORK = load_workload("mobilenetv3-train")


def test_a_board_heats_by_63_percent_in_its_time_constant_and_to_its_steady_state():
    assert BOARD.after_c(25, 10, 100) == pytest.approx(25 + 20 * (1 - math.exp(-1)))
    assert BOARD.after_c(80, 10, 1e5) == BOARD.steady_c(10) == 45
    assert BOARD.steady_c(BOARD.sustained_w) == 90


@given(st.floats(-20, 110), st.floats(0, 60), st.floats(0, 1e4), st.floats(0, 1e4))
def test_two_stretches_of_one_power_are_one(celsius, power_w, first_s, second_s):
    between_c = BOARD.after_c(celsius, power_w, first_s)
    whole_c = BOARD.after_c(celsius, power_w, first_s + second_s)
    assert BOARD.after_c(between_c, power_w, second_s) == pytest.approx(whole_c, abs=1e-6)


def heated(thermal, celsius):
    return HeatedDevice(open_device("twin:orin-nano"), thermal, celsius)


def test_a_throttled_device_draws_what_can_be_carried_off_and_says_what_slows_it():
    thermal = Thermal(ambient_c=40, k_per_w=4, tau_s=10, throttle_c=90)
    device = heated(thermal, 90.0)
    slowed = device.watch_throttling()
    assert slowed() == "" and device.excess_c() == 0 and device.excess_c(80) == 10
    device.execute(WORK)  # settles
    start_s, start_j = device.now(), device.energy_j()
    times_s = [device.execute(WORK) for _ in range(200)]
    assert sum(times_s) == pytest.approx(device.now() - start_s)
    power_w = (device.energy_j() - start_j) / (device.now() - start_s)
    assert power_w == pytest.approx(thermal.sustained_w, rel=0.05)
    assert slowed() == "heat"


def test_a_device_that_is_cool_runs_as_it_would():
    alone, device = open_device("twin:orin-nano"), heated(BOARD, 25.0)
    assert [alone.execute(WORK) for _ in range(5)] == [device.execute(WORK) for _ in range(5)]
    assert alone.energy_j() == device.energy_j() and device.excess_c() < 0
