"""The page of the boards, and what the files that it is made of must have."""

from __future__ import annotations

import pytest

from powerctl.board_files import BOARDS, known_modules, read_board
from powerctl.catalogue_page import catalogue_page
from tests.documented import ROOT


def test_the_page_is_what_the_catalogue_says():
    page = (ROOT / "docs" / "boards.md").read_text(encoding="utf-8")
    assert page == catalogue_page(), "make it again: powerctl boards --markdown > docs/boards.md"


@pytest.mark.parametrize("name", sorted(BOARDS.built_in))
def test_every_board_says_where_its_facts_are_from(name):
    sources = read_board(name)["sources"]
    assert any("clocks" in source for source in sources)
    assert any("presets" in source for source in sources)


def test_every_known_module_says_its_sources_and_what_was_not_found():
    for module in known_modules():
        assert module["sources"] and module["left_out"] and module["title"], module["name"]


def test_no_part_number_is_of_two_boards():
    parts = [part for name in BOARDS.built_in for part in read_board(name)["modules"]]
    parts += [part for module in known_modules() for part in module["parts"]]
    assert len(parts) == len(set(parts))
    names = {module["name"] for module in known_modules()}
    assert not names & {*BOARDS.built_in}
