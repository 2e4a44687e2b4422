"""Predictions of given modes, of the usual ones, and of all as CSV; fronts as rows and pictures."""

from __future__ import annotations

import csv

import pytest

PNG = b"\x89PNG"


def test_given_modes_are_predicted_by_value_and_by_name(as_json):
    asked = ("--mode", "12c/2201/1300/3199", "--mode", "maxn", "--mode", "mode_30w")
    said = as_json("predict", "--workload", "lstm-train", *asked)
    values, maxn, preset = said["modes"]
    assert values["mode"] == maxn["mode"] == "12c/2201/1300/3199"
    assert values["time_s"] == maxn["time_s"] < preset["time_s"]
    assert preset["name"] == "mode_30w" and "lstm-train" in said["origin"]


def test_without_a_mode_it_is_maxn_the_presets_and_the_front(as_json):
    names = [entry["name"] for entry in as_json("predict")["modes"]]
    assert names[0] == "MAXN" and "MODE_30W" in names and names.count("front") > 5


def test_of_a_table_only_what_it_holds_is_shown(as_json, small_csv):
    names = {entry["name"] for entry in as_json("predict", "--table", small_csv)["modes"]}
    assert names == {"MAXN", "front"}


def test_people_see_how_sure_each_figure_is(powerctl):
    lines = powerctl("predict", "--mode", "maxn").splitlines()
    assert lines[0].count("± %") == 3 and lines[1].startswith("maxn")
    assert "± is one standard deviation" in lines[-1]


def test_every_mode_is_written_as_a_table(powerctl, as_json, my_net, tmp_path):
    path = tmp_path / "all.csv"
    (maxn,) = as_json("predict", "--predictor", my_net, "--mode", "maxn", "--csv", path)["modes"]
    with open(path, newline="") as file:
        *others, last = csv.DictReader(file)
    assert len(others) + 1 == 18_096
    assert float(last["time_ms"]) == pytest.approx(1e3 * maxn["time_s"], rel=1e-4)
    assert float(last["power_std"]) == pytest.approx(maxn["power_std"], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mode", "fast"), "cannot read 'fast'"),
        (("--mode", "12c/2201/1300/1"), "memory 1 MHz is not a value of orin-agx"),
        (("--csv", "/no/such/all.csv"), "cannot be written"),
    ],
)
def test_what_cannot_be_predicted_is_said(failing, arguments, message):
    assert message in failing("predict", *arguments)


def test_a_mode_that_was_not_measured_is_said(failing, small_csv):
    message = failing("predict", "--table", small_csv, "--mode", "7c/1190/624/2133")
    assert "nothing on 7c/1190/624/2133: measured, resnet18.csv" in message


def test_the_front_is_listed_from_the_fastest_mode(as_json):
    said = as_json("pareto", "--workload", "mobilenetv3-train", "--points", 5, "--cost", "power")
    front = said["front"]
    assert len(front) == 5 < said["front_size"]
    assert front[0]["mode"] == "12c/2201/1300/3199"
    assert sorted(entry["power_w"] for entry in front[::-1]) == [e["power_w"] for e in front[::-1]]


@pytest.mark.parametrize("cost", ["power", "energy"])
def test_a_predictor_is_drawn_with_what_it_learned_from(powerctl, my_net, tmp_path, cost):
    out = tmp_path / "front.png"
    arguments = ("--predictor", my_net, "--cost", cost, "--power-limit", 30, "--out", out)
    assert "predicted by my-net.json" in powerctl("plot", *arguments)
    assert out.read_bytes().startswith(PNG) and out.stat().st_size > 20_000


def test_a_table_is_drawn(powerctl, small_csv, tmp_path):
    out = tmp_path / "front.png"
    assert "measured, resnet18.csv" in powerctl("plot", "--table", small_csv, "--out", out)
    assert out.read_bytes().startswith(PNG)


def test_a_picture_that_cannot_be_written_is_said(failing):
    assert "cannot be written" in failing("plot", "--out", "/no/such/front.png")


def test_a_limit_that_no_mode_keeps_is_said(failing, tmp_path):
    message = failing("plot", "--power-limit", 3, "--out", tmp_path / "front.png")
    assert "the least there is: 12.28 W" in message
