"""Predictors are fitted to tables and logs and say how good they are; so are references."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def run_log(powerctl, tmp_path_factory):
    """A log of ten modes of the simulated Orin Nano."""
    path = tmp_path_factory.mktemp("run") / "run.jsonl"
    asked = ("--workload", "resnet50-infer", "--batch", "4", "--modes", 10)
    powerctl("profile", "--device", "twin:orin-nano", *asked, "--out", path)
    return path


def test_a_log_says_what_it_is_of(as_json, run_log, tmp_path):
    fitted = as_json("fit", run_log, "--no-reference", "--out", tmp_path / "net.json")
    assert (fitted["board"], fitted["kind"], fitted["batch_size"]) == ("orin-nano", "infer", 4)
    assert fitted["measurements"] == 10 and fitted["references"] == []


def test_a_table_is_of_what_the_options_say(as_json, few_csv, tmp_path):
    asked = ("--kind", "infer", "--batch", 8, "--no-reference", "--out", tmp_path / "net.json")
    fitted = as_json("fit", few_csv, *asked)
    assert (fitted["board"], fitted["kind"], fitted["batch_size"]) == ("orin-agx", "infer", 8)


def test_the_expected_error_and_the_next_command_are_said(powerctl, few_csv, tmp_path):
    out = tmp_path / "net.json"
    said = powerctl("fit", few_csv, "--no-reference", "--out", out)
    assert f"{out}: fitted to 20 measurements on orin-agx, L4T 34.1" in said
    assert "expected of all 18,096 modes" in said and "left out" in said
    assert said.splitlines()[-1].startswith(f"next: powerctl choose --predictor {out}")


def test_what_was_fitted_predicts_what_it_saw(as_json, my_net, small_table):
    for row in (0, len(small_table) - 1):
        mode = str(small_table.modes.mode(row))
        (said,) = as_json("predict", "--predictor", my_net, "--mode", mode)["modes"]
        assert said["time_s"] == pytest.approx(small_table.time_s[row], rel=0.2)
        assert said["power_w"] == pytest.approx(small_table.power_w[row], rel=0.1)


def test_the_references_asked_for_are_started_from(as_json, powerctl, few_csv, tmp_path):
    for name in ("mine", "other"):
        powerctl("reference", "build", few_csv, "--name", name)
    out = ("--out", tmp_path / "net.json")
    assert as_json("fit", few_csv, "--reference", "mine", *out)["references"] == ["mine"]
    assert {"mine", "other"} <= set(as_json("fit", few_csv, *out)["references"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--reference", "mine", "--no-reference"), "not both"),
        (("--reference", "nosuch"), "unknown reference 'nosuch'"),
        (("--board", "orin-agz"), "unknown board 'orin-agz'"),
        (("--board", "orin-nano"), "is not a value of orin-nano"),
    ],
)
def test_what_cannot_be_fitted_is_said(failing, few_csv, tmp_path, arguments, message):
    assert message in failing("fit", few_csv, *arguments, "--out", tmp_path / "net.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--board", "orin-agx"), "is of board orin-nano, not orin-agx; leave --board out"),
        (("--kind", "train"), "is of kind infer, not train; leave --kind out"),
        (("--batch", 16), "has the batch sizes 4, not 16"),
    ],
)
def test_options_that_contradict_a_log_are_said(failing, run_log, tmp_path, arguments, message):
    assert message in failing("fit", run_log, *arguments, "--out", tmp_path / "net.json")


def test_a_log_without_measurements_is_said(failing, run_log, tmp_path):
    run_log.write_text(run_log.read_text().splitlines()[0] + "\n")
    message = failing("fit", run_log, "--out", tmp_path / "net.json")
    assert "nothing is measured yet" in message


@pytest.mark.parametrize("name", ["nowhere.csv", "nowhere.jsonl"])
def test_a_file_that_is_not_there_is_said(failing, tmp_path, name):
    assert "no such file" in failing("fit", tmp_path / name, "--out", tmp_path / "net.json")


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
