"""Quantities are read as people write them, and written as they read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from powerctl.errors import InvalidInput
from powerctl.quantities import parse, rounded, spoken, time_unit


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        *(("time", text, 0.08) for text in ("80ms", "80 ms", "0.08", ".08s", "8e1ms", "80000us")),
        *(("duration", text, 5400) for text in ("1h30m", "1 h 30 min", "90m", "5400s", "1.5h")),
        ("seconds", "15", 15),
        *(("power", text, 25) for text in ("25", "25W", "0.025 kW", "25000mW")),
        *(("energy", text, 1800) for text in ("1800", "1.8kJ", "0.5Wh", "1.8e-3MJ")),
        *(("rate", text, 30) for text in ("30", "30/s", "30Hz", "1800/min")),
        *(("share", text, 0.05) for text in ("5%", "0.05", "5 %")),
        ("share", "0%", 0),
    ],
)
def test_a_quantity_is_read(kind, text, value):
    assert parse(text, kind, "--what") == pytest.approx(value)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("time", "50", "--what 50: 50ms or 50s?"),
        ("time", "16.7", "16.7ms or 16.7s?"),
        ("duration", "20", "20s or 20m?"),
        ("share", "5", "5%?"),
    ],
)
def test_a_bare_number_that_may_mean_two_things_is_asked_back(kind, text, message):
    with pytest.raises(InvalidInput) as error:
        parse(text, kind, "--what")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "kind", ["time", "duration", "seconds", "power", "energy", "rate", "share"]
)
@pytest.mark.parametrize(
    "text", ["", "-1", "nan", "inf", "-3s", "-5%", "soon", "ms", "1e999", "30m1h", "5s5s", "25V"]
)
def test_what_is_no_such_quantity_is_answered_with_examples(kind, text):
    with pytest.raises(
        InvalidInput, match=f"cannot read --what .*: write a (duration|{kind}) .* 0: "
    ):
        parse(text, kind, "--what")


@pytest.mark.parametrize("text", ["0", "0ms", "0.0s"])
def test_a_time_is_above_0(text):
    with pytest.raises(InvalidInput, match="a time above 0"):
        parse(text, "time", "--what")


@given(
    st.sampled_from([("time", "s"), ("power", "W"), ("energy", "J")]),
    st.floats(1e-5, 9.9e5),
)
def test_what_is_spoken_is_read_back(kind_unit, value):
    kind, unit = kind_unit
    if unit != "s" and value < 1e-3:
        value *= 1e3  # no one writes microwatts
    told = spoken(value, unit)
    close = 1 / 60 if kind == "time" and value >= 59.95 else 0.006
    assert parse(told, kind, "--what") == pytest.approx(value, rel=close)


@given(st.floats(1e-3, 9e6), st.integers(1, 5))
@example(9999.7, 4)
def test_a_number_has_no_exponent_and_its_digits(value, digits):
    told = rounded(value, digits)
    assert "e" not in told
    assert float(told) == pytest.approx(value, rel=0.51 * 10.0 ** (1 - digits))


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (0.01228, "s", "12.3 ms"),
        (12.28, "s", "12.3 s"),
        (0.9999, "s", "1 s"),
        (372, "s", "6 min 12 s"),
        (59.97, "s", "1 min 0 s"),
        (3599.7, "s", "1 h 0 min"),
        (5400, "s", "1 h 30 min"),
        (2390, "J", "2.39 kJ"),
        (0.1, "J", "100 mJ"),
        (0, "W", "0 W"),
        (math.nan, "W", "-"),
    ],
)
def test_quantities_are_spoken_in_units_that_suit_them(value, unit, told):
    assert spoken(value, unit) == told


def test_a_column_of_times_is_in_ms_unless_one_is_long():
    assert time_unit([0.05, 9.9]) == ("ms", 1e3)
    assert time_unit([0.05, 12.0, math.nan]) == ("s", 1.0)
