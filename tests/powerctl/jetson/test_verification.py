"""A mode that is not in force is said so, with the axis and the reason."""

from __future__ import annotations

import pytest

from powerctl.devices.fake_jetson import FakeJetson
from powerctl.errors import ModeNotInForce
from powerctl.jetson.throttling import MARGIN_C
from powerctl.workload import load_workload

JOB = load_workload("resnet18-train")


@pytest.fixture(params=["4", "5.1"])
def device(request, fake):
    board = fake("xavier-agx", request.param)
    with FakeJetson(board.root) as opened:
        opened.apply(opened.space.maximum)
        yield opened


def run_for(device, seconds):
    started = device.now()
    while device.now() - started < seconds:
        device.execute(JOB)


def test_a_mode_that_is_in_force_stays_unreported(device):
    run_for(device, 5)


@pytest.mark.parametrize(
    "axis, ceiling, runs",
    [
        ("cpu", {"cpu_khz": 1_200_000}, "1190.4 MHz"),
        ("gpu", {"gpu_hz": 950_000_000}, "905.25 MHz"),
        ("memory", {"mem_hz": 1_600_000_000}, "1600 MHz"),
    ],
)
def test_heat_that_slows_an_axis_is_named_though_its_limits_read_right(device, axis, ceiling, runs):
    device.execute(JOB)
    device.sysfs.throttle(**ceiling)
    with pytest.raises(ModeNotInForce, match=rf"^{axis}.*{runs}"):
        run_for(device, 3)


def test_the_reason_is_heat_or_over_current(device):
    device.sysfs.throttle(gpu_hz=950_000_000)
    with pytest.raises(ModeNotInForce, match=r"cpu-throttle-alert slows down.*-therm at 100 degC"):
        device.verify()
    device.apply(device.space.minimum)
    device.sysfs.throttle(over_current=True, gpu_hz=100_000_000)
    with pytest.raises(ModeNotInForce, match=r"over-current \(oc3_irq_cnt 0 -> 1\)"):
        device.verify()


def test_over_current_that_is_over_again_is_reported(device):
    device.sysfs.throttle(over_current=True)
    with pytest.raises(ModeNotInForce, match=r"read right now, but.*over-current"):
        device.verify()


def test_throttling_that_was_there_before_is_not_blamed_on_the_mode(device):
    device.sysfs.throttle(over_current=True)
    device.apply(device.space.minimum)
    run_for(device, 3)


def test_over_current_since_boot_is_named_where_clocks_are_low_from_the_start(device):
    """Public reports of OC3 at boot: the CPU stays at 576 MHz, below its lowest of 729.6."""
    device.sysfs.throttle(over_current=True, cpu_khz=576_000)
    device.apply(device.space.maximum)
    with pytest.raises(
        ModeNotInForce,
        match=r"runs at 576 MHz; before the mode was applied: over-current since boot "
        r"\(oc3_irq_cnt 1\)$",
    ):
        device.verify()


def test_nvpmodel_moving_the_clocks_is_detected_and_named(device):
    device.sysfs.nvpmodel(2)
    with pytest.raises(ModeNotInForce, match=r"cores.*0,1,2,3.*nvpmodel was switched from mode 7"):
        run_for(device, 3)


def test_jetson_clocks_moving_the_clocks_is_detected(device):
    device.apply(device.space.minimum)
    device.sysfs.jetson_clocks()
    with pytest.raises(ModeNotInForce, match=r"memory.*2133 MHz.*jetson_clocks"):
        run_for(device, 30)


def test_the_fan_is_no_throttling(device):
    assert device.sysfs.read_int("sys/class/thermal/cooling_device0/cur_state") == 1
    device.verify()


def test_a_surface_that_is_hot_slows_nothing_down(fake):
    """An Orin warns from 70 degrees on, by a passive trip point and a cooling device."""
    board = fake("orin-nx", "6")
    with FakeJetson(board.root) as device:
        device.apply(device.space.maximum)
        board.heat(74)
        assert board.read_int("sys/class/thermal/cooling_device2/cur_state") == 1
        run_for(device, 3)
        assert device.excess_c() == 74 - (99 - MARGIN_C)
