"""Fronts as rows and as pictures."""

from __future__ import annotations

import pytest

PNG = b"\x89PNG"


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
