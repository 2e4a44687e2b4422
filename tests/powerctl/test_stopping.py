"""A signal ends a command in one line, whatever has become of it on its way."""

from __future__ import annotations

import signal

import pytest

from powerctl.errors import ModeNotInForce
from powerctl.stopping import Stopped, stopping_cleanly


def stopped_as(error):
    """Stop, and have what runs make another error of it."""
    with stopping_cleanly():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Stopped:
            raise error from None


def test_an_error_that_c_code_makes_of_a_signal_is_the_signal(capsys):
    with pytest.raises(SystemExit) as ended:
        stopped_as(ValueError("Invalid bounding box"))
    assert ended.value.code == 143 and capsys.readouterr().err == "stopped by SIGTERM\n"


def test_what_could_not_be_undone_is_told():
    with pytest.raises(ModeNotInForce):
        stopped_as(ModeNotInForce("not restored"))


def test_without_a_signal_an_error_is_itself():
    with pytest.raises(ValueError, match="a defect"), stopping_cleanly():
        raise ValueError("a defect")
