"""The command that measures ceilings; nothing here depends on how fast this machine is."""

from __future__ import annotations

import json
import re

import pytest
import torch
from click.testing import CliRunner

from powerctl import progress
from powerctl.commands.roofline import roofline
from powerctl.errors import DeviceUnavailable, InvalidInput, UnknownName

QUICK = ("--device", "cpu", "--threads", "1", "--array-mib", "1", "--seconds", "0.001")


def run(*arguments):
    return CliRunner().invoke(roofline, ["measure", *arguments], catch_exceptions=False)


def test_people_see_kernels_ceilings_and_what_they_are_of_the_vendors(monkeypatch):
    monkeypatch.setattr(progress, "_QUIET_S", 0.0)
    monkeypatch.setattr(progress, "_HEARTBEAT_S", 0.001)
    done = run(*QUICK)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert "1 thread)" in lines[0] and "float32" in lines[0]
    header = lines[1].split("  ")
    assert {"kernel", "FLOP/B", "GFLOP/s", "GB/s", "ms"} <= {cell.strip() for cell in header}
    (reached,) = [line for line in lines if line.startswith("reached:")]
    assert "FLOP/B" in reached
    assert "against the other 9 products" in lines[-1]
    assert re.search(r"^kernels \d+ of 12, \S", done.stderr, re.M) and "of 12" not in done.stdout


def test_scripts_get_json_and_a_file(tmp_path):
    path = tmp_path / "c.json"
    said = json.loads(run(*QUICK, "--json", "--out", str(path)).stdout)
    assert said["peak_flops"] > 0 and said["peak_bandwidth"] > 0 and said["threads"] == 1
    assert {"name", "flop", "dram_bytes", "time_s", "energy_j"} <= set(said["kernels"][0])
    runs = json.loads(path.read_text())["runs"]
    assert max(one["flop"] / one["time_s"] for one in runs) == said["peak_flops"]


def test_a_boards_memory_is_compared_with_but_not_its_gpu_with_a_cpu():
    said = json.loads(run(*QUICK, "--board", "orin-agx", "--json").stdout)
    assert said["vendor_bandwidth"] == pytest.approx(204.7e9, rel=1e-3)
    assert said["vendor_flops"] != pytest.approx(5.33e12, rel=1e-3)


def test_what_cannot_be_is_said_before_anything_runs(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'orin-agx'"):
        run(*QUICK, "--board", "orin-agk")
    with pytest.raises(InvalidInput, match="no folder"):
        run(*QUICK, "--out", str(tmp_path / "none" / "c.json"))
    with pytest.raises(InvalidInput, match="a duration above 0"):
        run("--seconds", "0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do():
    with pytest.raises(DeviceUnavailable, match="use cpu"):
        run("--accelerator", "cuda")


def test_help_shows_examples():
    assert "Examples:" in run("--help").stdout


def test_each_number_format_is_measured_and_has_a_file(tmp_path):
    out = tmp_path / "c.json"
    done = run(*QUICK, "--each", "--board", "orin-agx", "--out", str(out))
    assert done.exit_code == 0
    for name in ("float32", "bfloat16", "int8"):
        assert sum(line.startswith(name) for line in done.stdout.splitlines()) == 1
        path = tmp_path / f"c-{name}.json"
        assert json.loads(path.read_text())["dtype"] == name and str(path) in done.stdout
    said = json.loads(run(*QUICK, "--each", "--json").stdout)
    assert [one["dtype"] for one in said] == ["float32", "bfloat16", "int8"]
    assert all(one["peak_flops"] > 0 for one in said)
