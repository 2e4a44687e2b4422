"""Explaining, tuning, drawing and estimating a model on the command line."""

from __future__ import annotations

import pytest

from powerctl.measurement import MeasurementTable
from powerctl.workload import load_workload

OWN = """
from torch import nn
def make():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(16, 10))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A person's own model, in the directory where they are."""
    (tmp_path / "my_net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return ["my_net:make", "--input", "3,64,64"]


def test_an_own_model_is_explained_and_its_workload_written(powerctl, own, tmp_path):
    said = powerctl("explain", *own, "--mode", "mode_30w", "--batch", 4, "--out", "own.toml")
    assert "8c/1728/624/3199" in said and "Conv2d" in said and "bound by" in said
    assert "memory to 2133 MHz" in said
    workload = load_workload(str(tmp_path / "own.toml"))
    assert workload.kind == "infer" and workload.batch_size == 4 and workload.parameters == 618


def test_a_model_that_looks_at_its_data_is_run_on_zeros(as_json, own, tmp_path):
    (tmp_path / "looks.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x) if x.sum() == 0 else x\n"
        "def make():\n"
        "    return Net(8, 4)\n"
    )
    said = as_json("explain", "looks:make", "--input", "8", "--batch", 2)
    assert said["flop"] == 2 * 2 * 8 * 4 + 16 + 1  # and the sum of 16 numbers, and its comparison


def test_the_explanation_as_json(as_json, own):
    said = as_json("explain", *own, "--kind", "train", "--board", "orin-nano")
    assert sum(layer["flop"] for layer in said["layers"]) == said["flop"]
    assert sum(said["energy_j"].values()) == pytest.approx(said["time_s"] * said["power_w"])
    assert {step["axis"] for step in said["steps"]} >= {"gpu_hz", "mem_hz"}


def test_tuning_by_prediction_says_that_nothing_was_measured(powerctl, own):
    said = powerctl("tune", *own, "--batch", "1,16", "--slowdown", "10%")
    assert said.count("/s") == 0 and "predicted from counts" in said
    assert len(said.splitlines()) >= 4


def test_tuning_on_a_device_is_measured(as_json, own, tmp_path):
    said = as_json(
        *("tune", *own, "--device", "twin:orin-agx", "--modes", 4, "--attempts", 3),
        *("--kind", "train", "--out", "tuned.csv"),
    )
    (choice,) = said["choices"]
    table = MeasurementTable.read(tmp_path / "tuned.csv")
    assert choice["modes_measured"] == len(table) <= 7
    modes = {str(table.modes.mode(row)) for row in range(len(table))}
    assert choice["mode"] in modes and choice["slowdown"] <= 0.05


def test_costs_of_other_commands_come_from_counts_too(as_json, own):
    model, *shape = own
    said = as_json("choose", "--model", model, *shape, "--energy-min", "--slowdown", "5%")
    assert "estimated from the counts of my_net:make-infer" in said["origin"]
    assert said["time_std"] > 0.05


def test_rooflines_are_drawn_with_what_was_measured(powerctl, own, tmp_path):
    powerctl(
        "tune", *own, "--device", "twin:orin-agx", "--modes", 2, "--attempts", 0, "--out", "t.csv"
    )
    said = powerctl("roofline", "plot", *own, "--batch", 16, "--table", "t.csv", "--out", "r.png")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert "4 modes, 4 workload points" in said


def test_totals_are_estimated_for_a_model_that_is_not_at_hand(powerctl, tmp_path):
    out = tmp_path / "yolo.toml"
    powerctl(
        *("twin", "estimate", "--name", "yolo", "--kind", "infer", "--out", out),
        *("--flop-per-sample", 8.84e9, "--weight-bytes", 12.6e6, "--bytes-per-sample", 526.8e6),
    )
    assert load_workload(str(out)).signature.flop_per_sample > 8.84e9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "resnet5"), "resnet50"),
        (("explain", "no_such:make", "--input", "3,4,4"), "no module"),
        (("explain", "resnet18", "--mode", "13c/1/1/1"), "cores 13"),
        (("tune", "lstm", "--power-limit", "3"), "no mode is expected"),
        (("tune", "lstm", "--out", "x.csv"), "--device"),
        (("tune", "lstm", "--device", "twin:orin-nano"), "orin-agx"),
        (("predict", "--model", "lstm", "--table", "x.csv"), "not from both"),
        (("predict", "--kind", "train"), "--model"),
        (("roofline", "plot", "lstm", "resnet18", "--table", "x.csv"), "MODEL"),
    ],
)
def test_what_cannot_be_done_is_said(failing, arguments, message):
    assert message in failing(*arguments)
