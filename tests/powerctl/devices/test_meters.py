"""Meters count the joules of what they name, once."""

from __future__ import annotations

import math
import sys
import threading
from types import SimpleNamespace

import pytest

from powerctl.characterization.observing import gpu_load
from powerctl.devices.meters import NoMeter, PowerIntegral, Rapl, jetson, open_meter
from powerctl.errors import DeviceUnavailable
from tests.metering import counts
from tests.waiting import await_state


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


def write_rails(root, address, rails):
    """Channels as JetPack 5 has them: label, mV and mA; and the shunts' sum, which is no rail."""
    folder = root / f"sys/bus/i2c/drivers/ina3221/{address}/hwmon/hwmon3"
    for channel, (label, millivolt, milliampere) in enumerate(rails, start=1):
        write(folder / f"in{channel}_label", label)
        write(folder / f"in{channel}_input", millivolt)
        write(folder / f"curr{channel}_input", milliampere)
    write(folder / "in7_label", "sum of shunt voltages")
    write(folder / "in7_input", 40)


def write_package(root, zone, name, energy_uj, range_uj=1_000_000):
    folder = root / "sys/class/powercap" / zone
    write(folder / "name", name)
    write(folder / "energy_uj", energy_uj)
    write(folder / "max_energy_range_uj", range_uj)
    return folder / "energy_uj"


def test_a_modules_input_rail_is_its_power(tmp_path):
    write_rails(
        tmp_path, "1-0040", [("VDD_IN", 5000, 2000), ("VDD_CPU_GPU_CV", 5000, 900), ("NC", 1, 1)]
    )
    with jetson(tmp_path) as meter:
        assert "VDD_IN" in meter.name
        assert counts(meter.energy_j, 10)


def test_without_an_input_rail_the_rails_that_feed_the_others_are_added(tmp_path):
    orin = [("VDD_GPU_SOC", 20_000, 500), ("VDD_CPU_CV", 20_000, 250), ("VIN_SYS_5V0", 5000, 1000)]
    write_rails(tmp_path, "1-0040", orin)
    write_rails(tmp_path, "1-0041", [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 600)])
    with jetson(tmp_path) as meter:
        assert counts(meter.energy_j, 10 + 5 + 5)


def test_jetpack_4_says_milliwatts(tmp_path):
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    for channel, (label, milliwatt) in enumerate([("POM_5V_IN", 4000), ("POM_5V_GPU", 1500)]):
        write(folder / f"rail_name_{channel}", label)
        write(folder / f"in_power{channel}_input", milliwatt)
    with jetson(tmp_path) as meter:
        assert counts(meter.energy_j, 4)


def test_rails_that_no_board_of_the_catalogue_has_are_refused(tmp_path):
    write_rails(tmp_path, "1-0040", [("VDD_STRANGE", 5000, 2000)])
    with pytest.raises(DeviceUnavailable, match="VDD_STRANGE"):
        jetson(tmp_path)


def test_what_a_sensor_says_between_two_looks_counts():
    readings = []

    def power_w():
        sampled = threading.current_thread() is not threading.main_thread()
        readings.append(100.0 * sampled)
        return readings[-1]

    with PowerIntegral("a sensor that only its sampler sees", power_w) as meter:
        await_state(lambda: sum(readings) > 200)
        assert meter.energy_j() > 0


def test_packages_and_dram_are_added_but_not_what_they_hold_or_what_holds_them(tmp_path):
    counted = [
        write_package(tmp_path, "intel-rapl:0", "package-0", 100),
        write_package(tmp_path, "intel-rapl:0:1", "dram", 100),
    ]
    other = [
        write_package(tmp_path, "intel-rapl:0:0", "core", 100),
        write_package(tmp_path, "intel-rapl:1", "psys", 100),
    ]
    meter = Rapl(tmp_path)
    for path in (*counted, *other):
        write(path, 250_100)
    assert meter.energy_j() == pytest.approx(0.5)


def test_a_counter_that_starts_again_keeps_on_counting(tmp_path):
    path = write_package(tmp_path, "intel-rapl:0", "package-0", 900_000)
    meter = Rapl(tmp_path)
    for value in (990_000, 40_000, 140_000):
        write(path, value)
        energy_j = meter.energy_j()
    assert energy_j == pytest.approx(0.24)


class FakeNvml(SimpleNamespace):
    """NVIDIA's library with one GPU that has taken 1 J more at each look."""

    class NVMLError(Exception):
        pass

    def __init__(self, has_counter):
        super().__init__(energy_mj=0, has_counter=has_counter)

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByIndex(self, index):
        return f"gpu {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid):
        assert uuid.startswith("GPU-") and not uuid.startswith("GPU-GPU-")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):
        if not self.has_counter:
            raise self.NVMLError("Not Supported")
        self.energy_mj += 1000
        return self.energy_mj

    def nvmlDeviceGetPowerUsage(self, gpu):
        return 70_000

    def nvmlDeviceGetUtilizationRates(self, gpu):
        raise self.NVMLError("Not Supported")  # as of an Orin under JetPack 7


@pytest.mark.parametrize("uuid", [None, "1234", "GPU-1234"])
def test_a_gpus_counter_counts_from_opening(tmp_path, monkeypatch, uuid):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(has_counter=True))
    with open_meter("cuda", uuid, tmp_path) as meter:
        assert (meter.energy_j(), meter.energy_j()) == (1.0, 2.0)


def test_a_gpu_without_a_counter_has_its_power_integrated(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(has_counter=False))
    with open_meter("cuda", root=tmp_path) as meter:
        assert counts(meter.energy_j, 70)


def test_a_gpu_that_tells_no_load_has_none(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(has_counter=False))
    assert gpu_load(tmp_path) is None


def test_a_jetsons_rails_come_before_other_meters(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(has_counter=True))
    write_rails(tmp_path, "1-0040", [("VDD_IN", 5000, 2000)])
    write_package(tmp_path, "intel-rapl:0", "package-0", 0)
    for device in ("cpu", "cuda"):
        with open_meter(device, root=tmp_path) as meter:
            assert "VDD_IN" in meter.name


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_where_nothing_measures_nobody_knows(tmp_path, monkeypatch, device):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with open_meter(device, root=tmp_path) as meter:
        assert isinstance(meter, NoMeter) and math.isnan(meter.energy_j())
