from __future__ import annotations

import math

import pytest

from powerctl.errors import InvalidInput
from wattfed.client.fleet.fleet import TrainingLimits


@pytest.mark.parametrize(
    "bad", [{"power_w": 0}, {"energy_budget_j": -5}, {"round_energy_j": math.nan}]
)
def test_limits_must_be_positive(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        TrainingLimits(**bad)
