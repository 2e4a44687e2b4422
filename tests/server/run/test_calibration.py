"""Runs over twins whose true parameters differ from the fleet file's, and what is made of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from powerctl.devices.heated import HeatedDevice
from powerctl.devices.opening import open_device
from powerctl.errors import InvalidInput
from powerctl.thermal import Thermal
from powerctl.workload import load_workload
from wattfed.client.fleet import load_fleet
from wattfed.server.cli import cli
from wattfed.server.engines.simulation import simulate

ASSUMED = """ideal = false
[[group]]
board = "orin-nano"
count = 3
link_mbit_s = [10, 20, 30]

[[group]]
board = "orin-agx"
count = 2
power_w = 40
round = { agent = false, tail_j = 7 }
"""
TRUE = """[[group]]
board = "orin-nano"
count = 3
link_mbit_s = [10, 20, 30]
round = { fixed_s = 4.25, cold_s = 21, agent = false }

[[group]]
board = "orin-agx"
count = 2
round = { fixed_s = 1.5, cold_s = 9, agent = true }
"""
HEATS = Thermal(ambient_c=31, k_per_w=2.2, tau_s=90, throttle_c=99)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The assumed fleet, and a run over the true one."""
    path = tmp_path_factory.mktemp("calibrated")
    (path / "assumed.toml").write_text(ASSUMED)
    (path / "true.toml").write_text(TRUE)
    simulate(
        task="noop",
        fleet=str(path / "true.toml"),
        strategy="all",
        rounds=4,
        local_epochs=20,
        out_dir=str(path),
        name="run",
        workers=1,
    )
    (path / "board.log").write_text("\n".join(tegrastats(seed=1)) + "\n")
    return path


def tegrastats(seed, seconds=900):
    """What tegrastats would say of a twin that rests and trains in turn, once a second."""
    device = HeatedDevice(open_device("twin:orin-nano"), HEATS, 50.0)
    workload, rng = load_workload("mobilenetv3-train"), np.random.default_rng(seed)
    for second in range(seconds):
        start_s, start_j = device.now(), device.energy_j()
        while device.now() < start_s + 1:
            if second // 150 % 2:
                device.execute(workload)
            else:
                device.idle(0.25)
        device.excess_c()  # looks at the temperature
        power_mw = (device.energy_j() - start_j) / (device.now() - start_s) * 1e3
        celsius = device.celsius + rng.normal(0, 0.2)
        at = f"11-29-2026 {10 + int(device.now()) // 3600}:{int(device.now()) // 60 % 60:02}"
        yield (
            f"{at}:{int(device.now()) % 60:02} RAM 2448/7620MB CPU [1%@729,off] cv0@-256C "
            f"cpu@{celsius - 2:.3f}C PMIC@100C tj@{celsius:.3f}C VDD_IN {power_mw:.0f}mW/"
            f"{power_mw:.0f}mW VDD_CPU_GPU_CV 480mW/480mW VDD_SOC 1400mW/1400mW"
        )


def calibrate(folder, *more, fleet="assumed.toml"):
    command = ["calibrate", str(folder / "run"), "--fleet", str(folder / fleet), "--json", *more]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    return {(one["group"], one["key"]): one for one in json.loads(done.stdout)}


def test_what_was_assumed_stands_beside_what_the_run_took_with_its_interval(folder):
    told = calibrate(folder)
    for group, key, was, true in (
        (1, "fixed_s", 2.6, 4.25),
        (1, "cold_s", 38, 21),
        (1, "agent", 1, 0),
        (2, "fixed_s", 9.3, 1.5),
        (2, "cold_s", 5.5, 9),
        (2, "agent", 0, 1),
    ):
        one = told[group, key]
        assert one["was"] == was and one["written"] and one["source"]
        slack = 0.02 * true + 1e-9  # a cold minibatch is found beside those that follow
        assert one["found"]["low"] - slack <= true <= one["found"]["high"] + slack
    assert told[2, "minibatch time"]["found"]["mean"] == pytest.approx(1, rel=0.1)
    assert not told[2, "minibatch time"]["written"]


def test_a_log_tells_idle_power_and_how_the_board_heats(folder):
    told = calibrate(folder, "--log", f"orin-nano={folder / 'board.log'}")
    for key, true in (("k_per_w", 2.2), ("tau_s", 90), ("ambient_c", 31)):
        found = told[1, key]["found"]
        assert found["mean"] == pytest.approx(true, rel=0.03)
        assert found["low"] < true * 1.01 and found["high"] > true * 0.99
        assert found["high"] - found["low"] < 0.2 * true
    device = open_device("twin:orin-nano")
    device.idle(10)
    assert told[1, "idle_w"]["found"]["mean"] == pytest.approx(device.energy_j() / 10, rel=0.01)
    assert (2, "k_per_w") not in told


def test_the_corrected_fleet_is_the_true_one_and_keeps_all_else(folder):
    out = folder / "measured.toml"
    calibrate(folder, "--log", f"orin-nano={folder / 'board.log'}", "--out", str(out))
    true, found = (load_fleet(str(folder / name)) for name in ("true.toml", "measured.toml"))
    costs, wanted = found.round_costs, true.round_costs
    np.testing.assert_allclose(costs.fixed_s, wanted.fixed_s)
    np.testing.assert_allclose(costs.cold_s, wanted.cold_s, rtol=0.02)
    np.testing.assert_array_equal(costs.stays_warm, wanted.stays_warm)
    assert found.profiles.link_mbit_s.tolist() == [10, 20, 30, 100, 100]
    assert found.profiles.power_w[3] == 40 and costs.tail_j.tolist() == [0, 0, 0, 7, 7]
    again = calibrate(folder, fleet="measured.toml")
    assert again[1, "fixed_s"]["was"] == 4.25
    assert again[1, "fixed_s"]["found"]["mean"] == pytest.approx(4.25)


def test_in_a_deployed_run_the_server_has_waited_for_what_a_client_cannot_tell(folder, tmp_path):
    """The reports of clients without a fleet: how long the server waited is all there is."""
    (tmp_path / "run").mkdir()
    for file in (folder / "run").iterdir():
        if file.suffix in (".csv", ".json"):
            (tmp_path / "run" / file.name).write_bytes(file.read_bytes())
    lines = (folder / "run" / "reports.jsonl").read_text().splitlines()
    with open(tmp_path / "run" / "reports.jsonl", "w") as reports:
        for number, line in enumerate(lines):
            one = json.loads(line)
            beside_s = 3.0 + number % 5 / 10  # as Flower's processes start
            one |= {"overhead_s": 0, "answered_s": one["time_s"] + one["transfer_s"] + beside_s}
            reports.write(json.dumps(one) + "\n")
    (tmp_path / "assumed.toml").write_text(ASSUMED)
    found = calibrate(tmp_path)[1, "fixed_s"]["found"]
    assert found["low"] < 3.1 < found["high"] and found["high"] - found["low"] < 0.3


def test_a_log_of_jtop_is_read_and_one_of_nothing_is_refused_with_its_line(folder, tmp_path):
    rows = ["time,Power TOT,Temp cpu,Temp tj"]
    for line in tegrastats(seed=2):
        celsius = float(line.partition("tj@")[2].partition("C")[0])
        power_mw = line.partition("VDD_IN ")[2].partition("mW")[0]
        rows.append(f"2026-11-29 {line[11:19]},{power_mw},{celsius - 1},{celsius}")
    (tmp_path / "jtop.csv").write_text("\n".join(rows) + "\n")
    told = calibrate(folder, "--log", f"orin-nano={tmp_path / 'jtop.csv'}")
    assert told[1, "tau_s"]["found"]["mean"] == pytest.approx(90, rel=0.05)
    (tmp_path / "odd.log").write_text("hello\n" * 20)
    for log, why in (
        (f"orin-nano={tmp_path / 'odd.log'}", "odd.log, line 1: no line of tegrastats"),
        (f"nano={tmp_path / 'jtop.csv'}", "no board nano in"),
        ("tegrastats.log", "write BOARD=FILE"),
    ):
        done = CliRunner().invoke(
            cli,
            [
                "calibrate",
                str(folder / "run"),
                "--fleet",
                str(folder / "assumed.toml"),
                "--log",
                log,
            ],
        )
        assert isinstance(done.exception, InvalidInput) and why in str(done.exception)


def test_a_run_over_another_fleet_is_refused(folder, tmp_path):
    (tmp_path / "one.toml").write_text('[[group]]\nboard = "nano"\n')
    command = ["calibrate", str(folder / "run"), "--fleet", str(tmp_path / "one.toml")]
    done = CliRunner().invoke(cli, command)
    assert "is none of the 1 of" in str(done.exception)
