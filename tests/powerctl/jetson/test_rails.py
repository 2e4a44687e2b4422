"""Power of the rails and of the module, by board; where zeus has gaps there is none here."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from powerctl.devices.fake_jetson import FakeJetson
from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.jetson.energy import EnergyIntegral, PowerSampler
from powerctl.jetson.rails import JtopPower, RailPower, find_rails
from tests.powerctl.jetson.conftest import watts
from tests.waiting import await_state

TOTAL = {
    "orin-agx": ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    "orin-nx": ("VDD_IN",),
    "orin-nano": ("VDD_IN",),
    "xavier-agx": ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
    "xavier-nx": ("VDD_IN",),
    "nano": ("POM_5V_IN",),
}


def test_the_modules_power_is_the_rails_that_feed_all_others(board):
    board.set_power(20)
    power = RailPower(board)
    assert power.labels == TOTAL[board.kernel.state.board]
    assert power.total_w() == pytest.approx(20, abs=0.05)


def test_zeus_has_no_total_on_agx_boards_and_this_has(fake):
    for name in ("orin-agx", "xavier-agx"):
        board = fake(name, "5.1")
        board.set_power(33)
        assert RailPower(board).total_w() == pytest.approx(33, abs=0.05)


@pytest.mark.parametrize("name", ["orin-nano", "orin-nx"])
@pytest.mark.parametrize("jetpack", ["5.1", "6"])
def test_zeus_misses_the_gpu_of_orin_nano_and_nx_and_this_does_not(fake, name, jetpack):
    assert watts(fake(name, jetpack))["VDD_CPU_GPU_CV"] > 0  # the GPU's rail, which it shares


def test_the_dram_of_an_agx_orin_is_counted_once_and_by_jtops_rule_twice(fake):
    board = fake("orin-agx", "5.1")
    board.set_power(20)
    rails = watts(board)
    assert RailPower(board, "jtop").total_w() == pytest.approx(sum(rails.values()))
    assert RailPower(board, "jtop").total_w() == pytest.approx(
        RailPower(board).total_w() + rails["VDDQ_VDD2_1V8AO"]
    )
    assert RailPower(fake("orin-nano"), "jtop").labels == ("VDD_IN",)


def test_unconnected_channels_and_the_sum_of_shunts_are_no_rails(fake):
    board = fake("orin-agx", "5.1")
    folder = board.root / board.kernel.layout.monitor("1-0041")
    for channel, label in ((1, "NC"), (7, "sum of shunt voltages")):
        (folder / f"in{channel}_label").write_text(label)
        (folder / f"in{channel}_input").write_text("5000")
        (folder / f"curr{channel}_input").write_text("100")
    assert len(find_rails(board)) == 4


def test_strange_rails_and_rules_are_refused(fake):
    board = fake("nano", "4")
    with pytest.raises(InvalidInput, match="'module', 'jtop' or"):
        RailPower(board, "all")
    with board._changing() as kernel:
        kernel.state.rails[0][0] = "STRANGE"
    with pytest.raises(DeviceUnavailable, match="STRANGE"):
        RailPower(board)
    with pytest.raises(DeviceUnavailable, match="STRANGE"):
        FakeJetson(board.root)


def test_energy_is_the_integral_by_trapezoids():
    now = [0.0]
    integral = EnergyIntegral(lambda: 10 * now[0], lambda: now[0])
    for now[0] in (0.1, 0.15, 1.0, 2.5):
        integral.sample()
    assert integral.energy_j() == pytest.approx(5 * 2.5**2)


def test_a_sensor_that_is_silent_for_a_while_is_bridged_and_for_long_reported():
    now, answers = [0.0], [True]

    def power():
        if not answers[0]:
            raise OSError("busy")
        return 10.0

    integral = EnergyIntegral(power, lambda: now[0])
    answers[0], now[0] = False, 2.0
    assert integral.energy_j() == 0
    answers[0], now[0] = True, 4.0
    assert integral.energy_j() == pytest.approx(40)
    answers[0], now[0] = False, 10.0
    with pytest.raises(DeviceUnavailable, match="does not answer"):
        integral.energy_j()


def test_a_slow_sensor_is_sampled_less_often():
    readings = []

    def slow():
        began = time.thread_time()
        while time.thread_time() - began < 0.004:
            pass
        if threading.current_thread().name == "power sampler":
            readings.append(began)
        return 1.0

    began_s = time.monotonic()
    sampler = PowerSampler(EnergyIntegral(slow, time.monotonic), period_s=0.001, max_share=0.05)
    await_state(lambda: len(readings) > 4)
    sampler.close()
    lasted_s = time.monotonic() - began_s
    assert len(readings) <= 1 + lasted_s / 0.08, "4 ms each at 5 % of a core is one in 80 ms"


def test_jtop_is_another_source():
    power = {
        "rail": {"VDD_CPU_GPU_CV": {"power": 2100}, "VDD_SOC": {"power": 1400}},
        "tot": {"power": 6200, "name": "VDD_IN"},
    }
    client = SimpleNamespace(power=power, close=lambda: None)
    jtop = JtopPower(client)
    assert jtop.total_w() == 6.2 and jtop.labels == ("VDD_IN",)
    jtop.close()


def test_without_jetson_stats_the_remedy_is_said(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jtop", None)
    with pytest.raises(DeviceUnavailable, match=r"pip install 'powerctl\[jetson\]'"):
        JtopPower()
