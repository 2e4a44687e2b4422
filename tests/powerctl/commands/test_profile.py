"""Which modes a profile measures. The profiler itself: tests/powerctl/profiler."""

from __future__ import annotations

import pytest

from powerctl.fakes.making import make_fake_board
from powerctl.profiler.profile_log import ProfileLog
from tests.powerctl.jetson.conftest import settings

TWIN = ("--device", "twin:orin-agx", "--workload", "resnet18-train")
DESIGNED = ("--sampling", "designed")


def test_a_designed_sample_ends_when_the_rest_is_known(as_json, tmp_path):
    few = as_json("profile", *TWIN, "--modes", 20, *DESIGNED, "--out", tmp_path / "a.jsonl")
    until = ("--until", "20%", "--out", tmp_path / "b.jsonl")
    fewer = as_json("profile", *TWIN, "--modes", 20, *DESIGNED, *until)
    assert fewer["modes"] < few["modes"] == 20


@pytest.mark.studies
def test_a_designed_sample_is_gone_on_with(as_json, tmp_path):
    part, whole = tmp_path / "part.jsonl", tmp_path / "whole.jsonl"
    asked = ("profile", *TWIN, *DESIGNED)
    as_json(*asked, "--modes", 14, "--out", whole)
    as_json(*asked, "--modes", 6, "--out", part)
    assert as_json(*asked, "--modes", 14, "--out", part)["modes"] == 14
    first = [{entry.mode for entry in ProfileLog.read(p).entries[:6]} for p in (part, whole)]
    assert first[0] == first[1]


def test_a_designed_sample_keeps_to_the_sub_grid(as_json, tmp_path):
    out = tmp_path / "log.jsonl"
    as_json("profile", *TWIN, "--per-axis", 2, "--modes", 8, *DESIGNED, "--out", out)
    assert {entry.mode.cores for entry in ProfileLog.read(out).entries} <= {1, 12}


def test_a_fake_jetson_is_profiled_as_the_twin_is_and_left_as_it_was(as_json, failing, tmp_path):
    sysfs = make_fake_board("orin-agx", "5.0", tmp_path / "board")
    before = settings(sysfs)
    modes = ("--workload", "resnet18-train", "--modes", 4, "--seed", 1)
    jetson = ("--device", f"jetson:{sysfs.root}", *modes)
    for name, device in (("jetson", jetson), ("twin", (*TWIN, *modes))):
        assert as_json("profile", *device, "--out", tmp_path / f"{name}.jsonl")["modes"] == 4
    assert settings(sysfs) == before
    logs = [ProfileLog.read(tmp_path / f"{name}.jsonl") for name in ("jetson", "twin")]
    for one, other in zip(*(log.entries for log in logs), strict=True):
        assert one.time_s == pytest.approx(other.time_s, rel=0.05)
        assert one.power_w == pytest.approx(other.power_w, rel=0.05)
    more = tmp_path / "more.jsonl"
    as_json("profile", *jetson, "--total", "jtop", "--out", more)
    for once, twice in zip(logs[0].entries, ProfileLog.read(more).entries, strict=True):
        assert twice.power_w > 1.2 * once.power_w, "the DRAM's rail, counted a second time"
    assert "--total jtop" in failing("profile", *jetson, "--out", more)
    assert "is for a Jetson" in failing("profile", *TWIN, "--total", "jtop", "--out", more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--all", *DESIGNED), "designed sampling and --until need --modes"),
        (("--all", "--until", "3%"), "designed sampling and --until need --modes"),
        (("--modes", 9, "--sampling", "random", "--until", "3%"), "needs --sampling designed"),
        (("--modes", 9, *DESIGNED, "--until", "well"), "cannot read --until 'well'"),
    ],
)
def test_what_cannot_be_sampled_is_said(failing, tmp_path, arguments, message):
    assert message in failing("profile", *TWIN, *arguments, "--out", tmp_path / "log.jsonl")
