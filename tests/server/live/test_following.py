"""A file that grows is read once, and only where it is whole."""

from __future__ import annotations

import pytest

from wattfed.server.live.run import FollowedFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rounds.csv"


def test_a_line_is_read_once_and_when_it_is_whole(path):
    followed = FollowedFile(path)
    assert followed.new_lines() == []
    with open(path, "w") as file:
        for text, lines in (
            ("a,b\n1,", [(1, "a,b")]),
            ("2", []),
            ("\n3,4\n5", [(2, "1,2"), (3, "3,4")]),
        ):
            file.write(text)
            file.flush()
            assert followed.new_lines() == lines
    assert followed.new_lines() == [] and followed.read_lines == 3


@pytest.mark.parametrize("content", ["", "a,b\n", "a,b\n7,8\n", "a,b\n1,2\n3", "a,b\n9,9\n9,9\n"])
def test_a_file_that_was_cut_or_begun_anew_is_to_be_read_again(path, content):
    path.write_text("a,b\n1,2\n3,4\n")
    followed = FollowedFile(path)
    assert len(followed.new_lines()) == 3
    path.write_text(content)
    assert followed.new_lines() is None
    path.unlink()
    assert followed.new_lines() is None
