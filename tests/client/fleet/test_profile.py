from __future__ import annotations

import math

import pytest

from powerctl.errors import InvalidInput
from wattfed.client.fleet.fleet import ClientLimits


def test_the_allowance_is_the_tighter_of_round_and_run():
    limits = ClientLimits(energy_budget_j=100, round_energy_j=30)
    assert [limits.allowance_j(spent) for spent in (0, 80, 100, 120)] == [30, 20, 0, 0]
    assert ClientLimits().allowance_j(1e9) == math.inf


@pytest.mark.parametrize(
    "bad", [{"power_w": 0}, {"energy_budget_j": -5}, {"round_energy_j": math.nan}]
)
def test_limits_must_be_positive(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        ClientLimits(**bad)
