"""References are built from tables, listed, and shown."""

from __future__ import annotations


def test_a_reference_of_ones_own_is_built_and_listed(powerctl, as_json, few_csv, home):
    said = powerctl("reference", "build", few_csv, "--name", "mine")
    assert f"{home}/references/mine.toml: mine, from 20 measurements on orin-agx" in said
    assert "used by every powerctl fit" in said
    (mine,) = (item for item in as_json("reference", "list") if item["name"] == "mine")
    assert mine["n_rows"] == 20 and mine["source"] == "few.csv"


def test_a_reference_is_written_where_one_says(powerctl, as_json, few_csv, tmp_path):
    out = tmp_path / "elsewhere.toml"
    said = powerctl("reference", "build", few_csv, "--name", "mine", "--out", out)
    assert said.splitlines()[-1] == f"use it with: powerctl fit TABLE --reference {out}"
    assert as_json("reference", "show", out)["name"] == "mine"


def test_a_reference_is_shown_with_its_cost_model(powerctl, as_json, few_csv):
    powerctl("reference", "build", few_csv, "--name", "mine", "--source", "my board")
    shown = as_json("reference", "show", "mine")
    assert shown["source"] == "my board" and shown["signature"]["flop_per_sample"] > 0
    for_people = powerctl("reference", "show", "mine")
    assert "source: my board" in for_people and "flop_per_sample" in for_people


def test_an_unknown_reference_is_said(failing):
    assert "unknown reference 'nosuch'" in failing("reference", "show", "nosuch")
