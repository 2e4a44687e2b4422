"""`powerctl.solve`: on tables and on a device, and what it refuses."""

from __future__ import annotations

import pytest

import powerctl
from powerctl.boards import load_board
from powerctl.devices.twin import Twin
from powerctl.errors import InvalidInput, UnknownName
from tests.powerctl.fulcrum.conftest import SIZES, twin_table

ALONE = powerctl.TrainAlone(power_limit_w=40.0)
BOTH = powerctl.Concurrent(40.0, rate_hz=60.0, latency_s=1.5, batch_sizes=SIZES)


@pytest.fixture(scope="module")
def tables():
    space = load_board("orin-agx").space.thinned(4)
    train = twin_table("resnet18-train", space)
    return {"train": train, "infer": twin_table("mobilenetv3-infer", space, SIZES)}


def test_tables_are_replayed_and_all_of_them_give_the_optimum(tables):
    train = tables["train"]
    solution = powerctl.solve(ALONE, train=train, solver="optimal")
    assert solution.value == pytest.approx(train.time_s[train.power_w <= 40].min(), rel=1e-12)
    assert powerctl.solve(ALONE, train=train, cap=5).modes_profiled <= 5


def test_both_workloads_share_a_mode_within_the_bounds(tables):
    solution = powerctl.solve(BOTH, **tables, solver="gmd")
    assert solution.solved and solution.batch_sizes["infer"] in SIZES
    assert solution.figures["power_w"] <= 40 and solution.figures["latency_s"] <= 1.5
    assert solution.mode in {one.mode for one in solution.measured}


def test_a_device_is_measured_and_brought_back_to_the_mode_found():
    device = Twin(load_board("orin-agx"))
    found = device.mode()
    solution = powerctl.solve(ALONE, device, train=powerctl.load_workload("lstm-train"), cap=3)
    assert device.mode() == found and device.now() > 0
    assert solution.modes_profiled <= 3


def test_a_device_by_name_is_opened_and_the_seed_is_of_its_noise():
    asked = {"train": "resnet18-train", "cap": 2, "solver": "gmd"}
    first, again, other = (
        powerctl.solve(ALONE, "twin:orin-agx", random_state=seed, **asked) for seed in (0, 0, 1)
    )
    assert first == again
    assert first.measured[0].time_s != other.measured[0].time_s


def test_a_latency_in_which_no_batch_fills_has_no_answer(tables):
    hard = powerctl.Concurrent(40.0, rate_hz=1.0, latency_s=0.5, batch_sizes=SIZES)
    solution = powerctl.solve(hard, **tables)
    assert solution.mode is None and not solution.modes_profiled


@pytest.mark.parametrize(
    ("problem", "asked", "said"),
    [
        (ALONE, {}, "TrainAlone needs train: what runs; got none"),
        (BOTH, {"train": "a", "background": "b"}, "needs train and infer.*got train and backgr"),
        (ALONE, {"train": "resnet18-train"}, "workloads need a device"),
        (ALONE, {"device": "twin:orin-agx", "train": "resnet50-infer"}, "of kind infer, not train"),
        (ALONE, {"device": "twin:agx", "train": "resnet18-train"}, "unknown board 'agx'"),
        (ALONE, {"device": "twin:orin-agx", "train": "lstm"}, "unknown workload 'lstm'"),
        (ALONE, {"device": "twin:orin-agx", "train": "lstm-train", "solver": "b"}, "unknown solv"),
    ],
)
def test_what_does_not_fit_together_is_refused(problem, asked, said):
    with pytest.raises((InvalidInput, UnknownName), match=said):
        powerctl.solve(problem, **asked)


def test_a_table_needs_no_device(tables):
    with pytest.raises(InvalidInput, match="train is a table, which needs no device"):
        powerctl.solve(ALONE, "twin:orin-agx", train=tables["train"])
