"""Power of the rails and of the module, by board; where zeus has gaps there is none here."""

from __future__ import annotations

import threading
import time

import pytest

from powerctl.devices.fake_jetson import FakeJetson
from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.jetson.energy import EnergyIntegral, PowerSampler
from powerctl.jetson.plausible import PowerCheck
from powerctl.jetson.rails import JtopPower, RailPower, find_rails
from powerctl.workload import load_workload
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
    with FakeJetson(board.root) as device, pytest.raises(OSError, match="STRANGE"):
        device.power.total_w()


def test_two_monitors_with_the_same_labels_are_not_added_up(fake):
    """As on carrier boards that have one of their own; the module's has the lower address."""
    board = fake("orin-nano", "5.1")
    board.set_power(8)
    for name in ("1-0040", "1-0041"):
        copy = board.root / f"sys/bus/i2c/drivers/ina3221/{name}/hwmon/hwmon9"
        if name == "1-0041":
            copy.mkdir(parents=True)
            for channel, label in enumerate(("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"), start=1):
                (copy / f"in{channel}_label").write_text(label)
                (copy / f"in{channel}_input").write_text("12000")
                (copy / f"curr{channel}_input").write_text("1500")
    assert len(find_rails(board)) == 6
    assert RailPower(board).total_w() == pytest.approx(8, abs=0.05)


@pytest.mark.parametrize("power_w, said", [(68.5, "never draws"), (-3.0, "less than nothing")])
def test_a_total_that_cannot_be_the_boards_is_warned_of_once(fake, caplog, power_w, said):
    """68.5 W were told of an Orin Nano that drew 8.5 W: a USB-C supply was counted as a rail."""
    board = fake("orin-nano", "6")
    with FakeJetson(board.root) as device:
        device.idle(3)
        assert not caplog.records
        board.set_power(power_w)
        for _ in range(5):
            device._integral.sample()
    (warning,) = caplog.records
    assert said in warning.message and "INA3221: VDD_IN" in warning.message


def test_a_total_that_stands_still_under_a_changing_load_is_warned_of(caplog):
    now, check = [0.0], PowerCheck("a sensor")
    integral = EnergyIntegral(lambda: 23.4, lambda: now[0], check)
    for now[0] in range(0, 110, 10):
        integral.enter(None)
        integral.sample()
    assert not caplog.records
    for now[0] in range(110, 400, 10):
        integral.enter(None)
        integral.sample()
    (warning,) = caplog.records
    assert "23.4 W for 130 s, under a load that changed" in warning.message


def test_a_total_that_stands_still_under_a_constant_load_may_be_one(caplog):
    now = [0.0]
    integral = EnergyIntegral(lambda: 23.4, lambda: now[0], PowerCheck("a sensor"))
    for now[0] in range(0, 1000, 10):
        integral.sample()
    assert not caplog.records


def test_every_board_draws_less_than_its_check_warns_of(board, caplog):
    job = load_workload("resnet18-train")
    with FakeJetson(board.root) as device:
        device.apply(device.space.maximum)
        for _ in range(40):
            device.execute(job)
        device.idle(300)
    assert not caplog.records


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


class JtopClient:
    """What of jetson-stats 7.2's client is used, with what it does when its service has gone.

    Its thread ends, `ok` raises what ended it, and `power` is the last sample's for ever (jtop.py).
    """

    interval = 1.0

    def __init__(self, power):
        self.power = power
        self.uptime = 100.0
        self.error = None

    def ok(self, spin=False):
        assert spin, "else it waits"
        if self.error:
            raise self.error
        return True

    def close(self):
        self.closed = True


ORIN_NANO = {
    "rail": {"VDD_CPU_GPU_CV": {"power": 2100}, "VDD_SOC": {"power": 1400}},
    "tot": {"power": 6200, "name": "VDD_IN"},
}


def test_jtop_is_another_source():
    client = JtopClient(ORIN_NANO)
    jtop = JtopPower(client)
    assert jtop.total_w() == 6.2 and jtop.labels == ("VDD_IN",)
    jtop.close()
    assert client.closed


def test_a_jtop_service_that_has_gone_is_an_error_and_no_power():
    client = JtopClient(ORIN_NANO)
    jtop = JtopPower(client)
    client.error = RuntimeError("Lost connection with jtop server")
    with pytest.raises(OSError, match="has gone: Lost connection"):
        jtop.total_w()


def test_a_sample_of_jtop_is_stale_after_two_periods():
    now, client = [0.0], JtopClient(ORIN_NANO)
    jtop = JtopPower(client, clock=lambda: now[0])
    for now[0] in (0.5, 1.9):
        assert jtop.total_w() == 6.2
    now[0] = 2.1
    with pytest.raises(OSError, match="nothing new for 2.1 s"):
        jtop.total_w()
    client.uptime += 1
    assert jtop.total_w() == 6.2


def test_energy_of_a_dead_jtop_service_is_not_integrated():
    now, client = [0.0], JtopClient(ORIN_NANO)
    jtop = JtopPower(client, clock=lambda: now[0])
    integral = EnergyIntegral(jtop.total_w, lambda: now[0])
    now[0] = 1.0
    assert integral.energy_j() == pytest.approx(6.2)
    client.error = EOFError()
    now[0] = 3.0
    assert integral.energy_j() == pytest.approx(6.2)
    now[0] = 60.0
    with pytest.raises(DeviceUnavailable, match="power sensor does not answer: the jtop service"):
        integral.energy_j()


def test_jtop_without_power_is_refused_and_a_rail_that_it_loses_is_missed():
    with pytest.raises(DeviceUnavailable, match="reads no power monitor"):
        JtopPower(JtopClient({}))
    rails = {"GPU": {"power": 5000}, "CPU": {"power": 2000}}
    client = JtopClient({"rail": rails, "tot": {"power": 7000}})
    jtop = JtopPower(client)
    assert jtop.total_w() == 7.0
    client.power = {"rail": {"CPU": rails["CPU"]}, "tot": {"power": 2000}}
    with pytest.raises(OSError, match="does not read GPU now"):
        jtop.total_w()


def test_a_usb_supply_is_no_rail_of_the_module():
    """jetson-stats before 7.2.2 counts what /sys/class/power_supply has of USB-C (ucsi)."""
    rails = {"GPU": {"power": 5000}, "CPU": {"power": 3500}, "1-00081": {"power": 60_000}}
    client = JtopClient({"rail": rails, "tot": {"power": 68_500}})
    assert JtopPower(client, own=["GPU", "CPU", "SOC"]).total_w() == 8.5
    with pytest.raises(DeviceUnavailable, match="reads no power monitor"):
        JtopPower(client, own=["VDD_IN"])


def test_without_jetson_stats_the_remedy_is_said(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jtop", None)
    with pytest.raises(DeviceUnavailable, match=r"pip install 'powerctl\[jetson\]'"):
        JtopPower()
