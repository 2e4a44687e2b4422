"""Quantities are read as people write them."""

from __future__ import annotations

import pytest
from powerctl.commands.quantities import parse_minibatch_time

from powerctl.errors import InvalidInput


@pytest.mark.parametrize("text", ["80ms", "80 ms", "0.08", ".08s", "0.08s"])
def test_the_time_of_a_minibatch_is_read(text):
    assert parse_minibatch_time(text, "--deadline") == pytest.approx(0.08)


@pytest.mark.parametrize("text", ["", "0", "-1", "80m", "1e3", "nan", "ms"])
def test_what_is_no_time_is_an_error(text):
    with pytest.raises(InvalidInput, match="cannot read --deadline"):
        parse_minibatch_time(text, "--deadline")
