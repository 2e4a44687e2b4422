"""Tables fit the terminal, and nothing of them is lost."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from powerctl.console import table_lines

HEADER = ("", "mode", "train (ms)", "(W)", "training minibatches/s", "bounds")
ROWS = [
    (1, "4c/1344/828/2133", 90.91, 28.61, 7.5, "kept"),
    (2, "9c/652/1134/3199", 12280.4, 32.87, 7.5, "latency 537.5 ms (at most 500 ms); no room"),
]


def test_a_table_is_one_line_a_row_where_there_is_room():
    lines = table_lines(HEADER, ROWS, 150)
    assert len(lines) == 3 and lines == table_lines(HEADER, ROWS)
    assert "12280" in lines[2]  # no exponent


@given(st.integers(56, 120))
def test_a_narrow_terminal_takes_more_lines_and_loses_no_word(width):
    lines = table_lines(HEADER, ROWS, width)
    assert max(map(len, lines)) <= width
    words = sorted(re.findall(r"\S+", " ".join(lines)))
    assert words == sorted(re.findall(r"\S+", " ".join(table_lines(HEADER, ROWS))))
