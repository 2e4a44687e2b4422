"""A small board's worth of costs, from the cost model, and the problems asked of them."""

from __future__ import annotations

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.cost_model import minibatch_cost
from powerctl.fulcrum.problems import Concurrent, InferAlone, TrainAlone, TwoInferences
from powerctl.fulcrum.replay import Replay
from powerctl.measurement import MeasurementTable
from powerctl.modes import ModeArrays
from powerctl.workload import load_workload

SIZES = (1, 4, 16, 64)


def twin_table(workload, space, sizes=None):
    """What the twin without variation measures of a workload, with batch sizes or without."""
    board, each = load_board("orin-agx"), sizes or (16,)
    modes = ModeArrays(*(np.repeat(axis, len(each)) for axis in space.arrays))
    batch_size = np.tile(each, len(space))
    signature = load_workload(workload).signature
    cost = minibatch_cost(board.hardware, signature, *modes, batch_size)
    return MeasurementTable(modes, batch_size if sizes else None, cost.time_s, cost.power_w)


@pytest.fixture(scope="session")
def replay() -> Replay:
    """Training and two inferences on 256 modes."""
    space = load_board("orin-agx").space.thinned(4)
    tables = {
        "train": twin_table("resnet18-train", space),
        "infer": twin_table("mobilenetv3-infer", space, SIZES),
        "background": twin_table("resnet50-infer", space, SIZES),
    }
    return Replay.of(tables, "orin-agx")


PROBLEMS = {
    "train": TrainAlone(25.0),
    "train, generous": TrainAlone(60.0),
    "train, impossible": TrainAlone(1.0),
    "infer": InferAlone(25.0, 60.0, 0.2, SIZES),
    "infer, no batch fills": InferAlone(25.0, 1.0, 0.5, SIZES),
    "concurrent": Concurrent(25.0, 60.0, 1.5, SIZES),
    "concurrent, count": Concurrent(25.0, 60.0, 1.5, SIZES, objective="count", guard=False),
    "concurrent, hard": Concurrent(16.0, 100.0, 0.8, SIZES),
    "two inferences": TwoInferences(25.0, 60.0, 1.5, SIZES, (4, 16), background_latency_s=0.5),
}


@pytest.fixture(params=list(PROBLEMS))
def problem(request):
    """One problem after the other, impossible ones too."""
    return PROBLEMS[request.param]
