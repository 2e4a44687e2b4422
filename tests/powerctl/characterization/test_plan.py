from __future__ import annotations

import pytest

from powerctl.characterization.plan import FACTORS, Cell, Plan, described, factor
from powerctl.errors import InvalidInput, UnknownName

BASE = Cell(workers=2, batch_size=16)
LEVELS = {"workers": (0, 2), "prefetch": (1, 2), "batch": (16, 64), "infer-batch": (1, 8)}


def test_one_factor_is_varied_at_a_time():
    cells = Plan(BASE, LEVELS).cells()
    assert [described(cell, BASE) for cell in cells] == [
        "",
        "workers 0",
        "prefetch 1",
        "batch 64",
        "infer, batch 1",
        "infer, batch 8",
    ]


def test_a_grid_has_each_level_with_each_of_the_others():
    cells = Plan(BASE, LEVELS, grid=True).cells()
    training = {(c.workers, c.prefetch, c.batch_size) for c in cells if c.kind == "train"}
    ahead = {(0, 0), (2, 1), (2, 2)}  # nothing is loaded ahead without workers
    assert training == {(*pair, size) for pair in ahead for size in (16, 64)}
    inference = {(c.workers, c.prefetch, c.batch_size) for c in cells if c.kind == "infer"}
    assert inference == {(*pair, size) for pair in ahead for size in (1, 8)}


def test_the_observer_varies_with_inference_too():
    plan = Plan(BASE, {"observer": (True, False), "infer-batch": (1,)}, grid=True)
    assert {cell.observer for cell in plan.cells() if cell.kind == "infer"} == {True, False}


def test_each_repetition_runs_all_cells_in_an_order_of_its_own():
    plan = Plan(BASE, LEVELS, repetitions=4)
    orders = [
        [run.configuration for run in plan.runs() if run.repetition == number]
        for number in range(4)
    ]
    assert all(set(order) == set(plan.cells()) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert plan.runs() == Plan(BASE, LEVELS, repetitions=4).runs()


def test_workers_from_a_baseline_without_load_as_usual():
    none = Cell(workers=0)
    assert factor("workers").set(none, 2) == Cell(workers=2)


def test_what_cannot_be_planned_is_said():
    with pytest.raises(InvalidInput, match="2 epochs"):
        Plan(BASE, epochs=1)
    with pytest.raises(InvalidInput, match="no factor wrokers"):
        Plan(BASE, {"wrokers": (1,)})
    with pytest.raises(UnknownName, match="did you mean 'workers'"):
        factor("wrokers")
    with pytest.raises(InvalidInput, match="batch_size is 0"):
        Cell(batch_size=0)
    with pytest.raises(InvalidInput, match="at least 1 minibatch ahead"):
        Cell(workers=2, prefetch=0)


@pytest.mark.parametrize("name", FACTORS)
def test_a_level_that_is_set_is_the_level(name):
    level = {"storage": "packed", "mode": "MAXN", "observer": False}.get(name, 3)
    assert FACTORS[name].level(FACTORS[name].set(BASE, level)) == level
