"""Choices answer the question asked, say how sure they are, and are measured on request."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from powerctl.cli import cli
from powerctl.devices import opening
from powerctl.devices.twin import Twin
from powerctl.errors import TaskFailed

TASK = """
import torch
def make_model(): return torch.nn.Linear(1, 1)
def load_data(batch_size): return [batch_size] * 30
def test(): ...
def train_step(batch):
"""
TWIN = ("--device", "twin:orin-agx", "--workload", "resnet18-train")


def test_a_power_limit_alone_gives_the_fastest_mode(as_json, small_csv, small_table):
    chosen = as_json("choose", "--table", small_csv, "--power-limit", 25)
    within = small_table.power_w <= 25
    assert chosen["time_s"] == pytest.approx(small_table.time_s[within].min(), rel=1e-4)


def test_a_deadline_gives_the_least_energy(as_json, small_csv, small_table):
    chosen = as_json("choose", "--table", small_csv, "--deadline", "200ms")
    within = small_table.time_s <= 0.2
    assert chosen["energy_j"] == pytest.approx(small_table.energy_j[within].min(), rel=1e-4)


def test_energy_alone_is_least_at_any_time(as_json, small_csv, small_table):
    chosen = as_json("choose", "--table", small_csv, "--energy-min")
    assert chosen["energy_j"] == pytest.approx(small_table.energy_j.min(), rel=1e-4)


@pytest.mark.parametrize("share", ["10%", "0.1"])
def test_a_slow_down_is_against_the_fastest_within_the_power_limit(
    as_json, small_csv, small_table, share
):
    limits = ("--power-limit", 25, "--slowdown", share)
    chosen = as_json("choose", "--table", small_csv, *limits)
    cool = small_table.power_w <= 25
    quick = small_table.time_s <= 1.1 * small_table.time_s[cool].min()
    least = small_table.energy_j[cool & quick].min()
    assert chosen["energy_j"] == pytest.approx(least, rel=1e-4)


def test_a_limit_is_kept_with_the_confidence_asked_for(as_json):
    for confidence, deviations in (("50%", 0.0), ("90%", 1.2816), ("0.99", 2.3263)):
        chosen = as_json("choose", "--power-limit", 30, "--confidence", confidence)
        (limit,) = chosen["limits"]
        bound = chosen["power_w"] * np.exp(deviations * chosen["power_std"])
        assert limit["bound"] == pytest.approx(bound, rel=1e-4)
        assert limit["bound"] <= 30
        assert limit["bound"] > 29.5


def test_the_answer_says_how_sure_it_is_and_by_what_margin(powerctl):
    line = powerctl("choose", "--power-limit", 30).splitlines()[2]
    assert line.startswith("power limit 30 W: predicted 28")
    assert "W ± 4.7 %" in line and "at 90 % confidence" in line and "W below the limit" in line


def test_what_is_measured_needs_no_margin(powerctl, small_csv):
    answer = powerctl("choose", "--table", small_csv, "--power-limit", 25)
    assert "±" not in answer and "confidence" not in answer
    assert answer.splitlines()[-1] == "measured, resnet18.csv"


def test_a_saved_predictor_is_chosen_by(as_json, my_net):
    chosen = as_json("choose", "--predictor", my_net, "--power-limit", 30)
    assert "predicted by my-net.json for orin-agx, L4T 34.1" in chosen["origin"]
    assert 0 < chosen["power_std"] < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --power-limit, --deadline, --slowdown or --energy-min"),
        (
            ("--power-limit", 5),
            "limit of 5 W at 90 % confidence; the least there is: 12.28 W",
        ),
        (("--deadline", "1ms"), "deadline of 1 ms at 90 % confidence; the least there is: 62"),
        (("--power-limit", 20, "--deadline", "9ms"), "no mode within 20 W keeps the deadline"),
        (("--power-limit", -3), "write a power above 0: 25W, 0.8kW"),
        (("--deadline", "soon"), "above 0: 50ms, 1.5s"),
        (("--slowdown", "-5%"), "write a share of at least 0: 2%, 0.02"),
        (("--deadline", "50"), "--deadline 50: 50ms or 50s?"),
        (("--slowdown", "5"), "--slowdown 5: 5%?"),
        (("--power-limit", "nan"), "cannot read --power-limit"),
        (("--energy-min", "--confidence", "30%"), "from 0.5 (no margin) to below 1"),
        (("--energy-min", "--table", "a.csv", "--predictor", "b"), "not from both"),
        (("--energy-min", "--predictor", "nowhere.json"), "nowhere.json"),
        (("--energy-min", "--verify"), "--verify needs --device"),
        (("--energy-min", "--verify", "--device", "twin:orin-nano"), "is no orin-agx"),
    ],
)
def test_what_cannot_be_answered_is_said(failing, arguments, message):
    assert message in failing("choose", *arguments)


def test_a_table_of_several_batch_sizes_asks_which(failing, as_json, small_table, tmp_path):
    path = tmp_path / "sizes.csv"
    lines = ["cores,cpu_khz,gpu_hz,mem_hz,batch_size,time_ms,power_w"]
    mode = ",".join(map(str, small_table.modes.mode(0).values))
    lines += [f"{mode},{size},{10 * size},20" for size in (1, 4)]
    path.write_text("\n".join(lines))
    asked = ("choose", "--table", path, "--energy-min")
    assert "has the batch sizes 1, 4; choose one with --batch" in failing(*asked)
    assert as_json(*asked, "--batch", 4)["time_s"] == pytest.approx(0.04)


# Measured


def test_a_verified_choice_is_measured_within_the_limit(as_json):
    chosen = as_json("choose", "--power-limit", 30, "--verify", *TWIN)
    assert chosen["kept"] and chosen["power_w"] <= 30 and chosen["power_std"] == 0
    assert chosen["origin"].startswith("measured on twin:orin-agx")
    assert chosen["attempts"][-1]["predicted"]["mode"] == chosen["mode"]


@pytest.fixture
def hopeful_csv(small_table, tmp_path):
    """A table that promises a tenth less power than the device takes."""
    path = tmp_path / "hopeful.csv"
    replace(small_table, power_w=0.9 * small_table.power_w).write(path)
    return path


@pytest.fixture
def hopeful(powerctl, hopeful_csv, tmp_path):
    """Sources of costs that promise too little power."""
    few, net = tmp_path / "hopeful-few.csv", tmp_path / "hopeful.json"
    few.write_text("\n".join(hopeful_csv.read_text().splitlines()[::13]))
    powerctl("fit", few, "--no-reference", "--out", net)
    return {"--table": hopeful_csv, "--predictor": net}


@pytest.mark.parametrize("source", ["--predictor", "--table"])
def test_a_broken_limit_leads_to_the_next_best(as_json, hopeful, source):
    costs = (source, hopeful[source], "--confidence", "50%", "--attempts", 50)
    chosen = as_json("choose", "--power-limit", 30, *costs, "--verify", *TWIN)
    *before, last = chosen["attempts"]
    assert before and all(attempt["power_w"] > 30 for attempt in before)
    assert last["power_w"] <= 30 and not last["broken"]
    assert all(attempt["predicted"]["power_w"] <= 30 for attempt in chosen["attempts"])


def test_attempts_are_shown_measured_beside_predicted(powerctl):
    shown = powerctl("choose", "--power-limit", 30, "--verify", *TWIN).splitlines()
    assert shown[0].split("  ")[0] == "measured mode" and shown[0].count("predicted") == 2
    assert shown[1].endswith("kept")


def test_limits_that_no_attempt_kept_are_exit_code_1(hopeful_csv):
    asked = ("choose", "--table", str(hopeful_csv), "--power-limit", "30", "--verify", *TWIN)
    done = CliRunner().invoke(cli, [*asked, "--attempts", "2", "--json"])
    assert done.exit_code == 1
    assert "none of 2 measured modes kept the limits" in done.stderr
    assert "W above the limit" in done.stderr
    result = json.loads(done.stdout)
    assert not result["kept"] and len(result["attempts"]) == 2


def test_the_device_is_restored_even_if_a_task_fails(powerctl, monkeypatch, tmp_path):
    device = Twin(opening.open_device("twin:orin-agx").board)
    monkeypatch.setattr(opening, "open_device", lambda spec, board: device)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing_task.py").write_text(TASK + "    1 / 0\n")
    found = device.mode()
    with pytest.raises(TaskFailed, match=r"failing_task\.py: train_step raised ZeroDivisionError"):
        powerctl("choose", "--power-limit", 30, "--verify", *TWIN, "--task", "failing_task.py")
    assert device.mode() == found


def test_a_choice_is_verified_with_a_task_of_ones_own(powerctl, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "counting_task.py").write_text("count = []\n" + TASK + "    count.append(1)\n")
    powerctl("choose", "--power-limit", 30, "--verify", *TWIN, "--task", "counting_task")
    import counting_task

    assert len(counting_task.count) > 40
