"""The device side of wattfed: power modes, their cost, and the choice among them.

The names that are listed here are public, and docs/python.md shows them; all else is private by
convention. Each is imported when it is first used: whoever imports the package pays for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from powerctl.exports import exports

if TYPE_CHECKING:
    from powerctl.boards import Board as Board
    from powerctl.boards import load_board as load_board
    from powerctl.devices.opening import open_device as open_device
    from powerctl.fulcrum.problems import Concurrent as Concurrent
    from powerctl.fulcrum.problems import InferAlone as InferAlone
    from powerctl.fulcrum.problems import TrainAlone as TrainAlone
    from powerctl.fulcrum.problems import TwoInferences as TwoInferences
    from powerctl.fulcrum.solving import solve as solve
    from powerctl.measurement import MeasurementTable as MeasurementTable
    from powerctl.modes import PowerMode as PowerMode
    from powerctl.pareto import pareto_front as pareto_front
    from powerctl.powertrain.gaussian import GaussianPredictor as GaussianPredictor
    from powerctl.workload import Workload as Workload
    from powerctl.workload import load_workload as load_workload
else:  # the same, when it is used
    __all__, __getattr__, __dir__ = exports(
        __name__,
        {
            "powerctl.boards": "Board load_board",
            "powerctl.devices.opening": "open_device",
            "powerctl.fulcrum.problems": "Concurrent InferAlone TrainAlone TwoInferences",
            "powerctl.fulcrum.solving": "solve",
            "powerctl.measurement": "MeasurementTable",
            "powerctl.modes": "PowerMode",
            "powerctl.pareto": "pareto_front",
            "powerctl.powertrain.gaussian": "GaussianPredictor",
            "powerctl.workload": "Workload load_workload",
        },
    )
