"""Tables from the cost model, with the noise of measuring, and a reference built from one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.cost_model import minibatch_cost
from powerctl.measurement import MeasurementTable
from powerctl.modes import ModeArrays
from powerctl.powertrain.reference import Reference
from powerctl.powertrain.reference_fit import build_reference
from powerctl.workload import load_workload

MakeTable = Callable[..., MeasurementTable]


@pytest.fixture(scope="session")
def model_table() -> MakeTable:
    """Make the table of a workload on a sub-grid of a board: the cost model times noise."""

    def make(
        workload: str,
        board: str = "orin-agx",
        *,
        per_axis: int = 5,
        batch_sizes: Sequence[int] = (),
        noise: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
    ) -> MeasurementTable:
        grid = load_board(board).space.thinned(per_axis).arrays
        repeats = max(len(batch_sizes), 1)
        modes = ModeArrays(*(np.tile(axis, repeats) for axis in grid))
        sizes = np.repeat(np.array(batch_sizes or (16,), dtype=np.int64), len(grid.cores))
        hardware, signature = load_board(board).hardware, load_workload(workload).signature
        cost = minibatch_cost(hardware, signature, *modes, sizes)
        scatter = np.random.default_rng(seed).standard_normal((2, len(sizes)))
        time_s, power_w = np.array([cost.time_s, cost.power_w]) * np.exp(
            np.array(noise)[:, None] * scatter
        )
        return MeasurementTable(modes, sizes if batch_sizes else None, time_s, power_w, workload)

    return make


@pytest.fixture(scope="session")
def own_reference(model_table) -> Reference:
    """ResNet-18 training as a user builds it: with its residual, mode by mode."""
    table = model_table("resnet18-train", per_axis=3, noise=(0.02, 0.01))
    board = load_board("orin-agx")
    return build_reference(table, board, name="own", kind="train", source="a test")
