"""`powerctl boards`: the catalogue, and one board of it."""

from __future__ import annotations

import re


def test_a_board_is_shown_with_its_releases_and_presets(powerctl):
    said = powerctl("boards", "orin-nano")
    assert re.findall(r"^orin-nano +(\S+)", said, re.MULTILINE) == ["35.3", "36.4"]
    assert "presets of L4T 36.4: 15W 6c/1497/612/2133, 25W" in said
    assert "default: L4T 35.3" in said and "orin-nano@36.4" in said


def test_an_alias_is_enough_and_json_is_of_the_one_board(as_json):
    assert [board["l4t"] for board in as_json("boards", "orin-nano-8gb")] == ["35.3", "36.4"]


def test_an_unknown_board_is_answered_with_the_known(failing):
    assert "did you mean 'orin-agx'" in failing("boards", "orin-agz")


def test_the_release_is_in_what_is_said(powerctl):
    assert "orin-nano, L4T 35.3 (--l4t 36.4: GPU to 1020 MHz)" in powerctl(
        "presets", "--board", "orin-nano"
    )
    said = powerctl("predict", "--board", "orin-nano@36.4", "--mode", "25W")
    assert "orin-nano, L4T 36.4" in said and "extrapolated above 625 MHz of the GPU" in said
