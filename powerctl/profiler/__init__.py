"""The profiler: runs minibatches in modes of a device and turns them into measurements.

One mode is measured as the PowerTrain paper does it (section 1.2 of its protocol): the first
minibatch is dropped, power is read at the pace of the sensor and only once it has settled. What
the paper fixes at 40 minibatches is here the least; it goes on until both means are known to a
stated precision.
"""

from powerctl.profiler.campaign import (
    Doubting,
    FixedModes,
    ProfileProgress,
    Sampler,
    expected_seconds,
    profile,
    switch_order,
)
from powerctl.profiler.measuring import ProfiledMode, Step, measure_mode
from powerctl.profiler.procedure import Procedure, half_width, settled_from, warm_up

__all__ = [
    "Doubting",
    "FixedModes",
    "Procedure",
    "ProfiledMode",
    "ProfileProgress",
    "Sampler",
    "Step",
    "expected_seconds",
    "half_width",
    "measure_mode",
    "profile",
    "settled_from",
    "switch_order",
    "warm_up",
]
