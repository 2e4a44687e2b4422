"""Boards of an unknown release, or that the catalogue lacks: measured, and then used elsewhere."""

from __future__ import annotations

import json

import pytest

from powerctl import boards
from powerctl.fakes.making import make_fake_board


@pytest.fixture
def elsewhere():
    """What another process knows: nothing of the boards that were found in this one."""
    return boards._FOUND.clear


def profile(powerctl, root, log):
    powerctl(
        *("profile", "--device", f"jetson:{root}", "--workload", "resnet18-train"),
        *("--modes", "8", "--out", log),
    )
    return json.loads(log.read_text().splitlines()[0])


def test_a_log_of_an_unknown_release_is_fitted_on_the_clocks_that_it_has(
    powerctl,
    as_json,
    tmp_path,
    elsewhere,
):
    root = make_fake_board("orin-agx", "6", tmp_path / "agx").root
    (root / "etc/nv_tegra_release").unlink()
    header = profile(powerctl, root, tmp_path / "run.jsonl")
    assert "unknown" in json.dumps(header) and "34.1" not in json.dumps(header)
    elsewhere()
    powerctl("fit", tmp_path / "run.jsonl", "--out", tmp_path / "net.json")
    chosen = as_json("choose", "--predictor", tmp_path / "net.json", "--power-limit", "30")
    assert boards.load_board("orin-agx", "35.2").space.parse(chosen["mode"])


def test_a_log_of_a_board_that_the_catalogue_lacks_asks_for_its_file_and_takes_it(
    powerctl,
    failing,
    tmp_path,
    elsewhere,
):
    root = make_fake_board("orin-nx", "6", tmp_path / "nx").root
    (root / "proc/device-tree/compatible").write_text("acme,box+p9767-0009\0nvidia,tegra234\0")
    header = profile(powerctl, root, tmp_path / "run.jsonl")
    assert "p9767-0009" in json.dumps(header)
    elsewhere()
    fit = ("fit", tmp_path / "run.jsonl", "--out", tmp_path / "net.json")
    assert "p9767-0009" in (refused := failing(*fit)) and "powerctl board new" in refused
    powerctl("doctor", "--root", root, "--report", tmp_path / "board.txt")
    powerctl("board", "new", tmp_path / "board.txt")
    powerctl(*fit)
    assert "p9767-0009" in powerctl("boards")
    powerctl("choose", "--predictor", tmp_path / "net.json", "--power-limit", "15")
