from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.boards import load_board
from powerctl.cost_model import minibatch_cost
from powerctl.devices.twin import Twin
from powerctl.measurement import MeasurementTable
from powerctl.modes import ModeArrays, PowerMode
from powerctl.powertrain.design import DesignedModes, fastest_up_to, most_informative
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.profiler import FixedModes, ProfiledMode, Sampler, profile
from powerctl.workload import Workload, load_workload
from tests.powerctl.profiler.memory_log import MemoryLog

pytestmark = pytest.mark.studies

BOARD = load_board("orin-agx")
SPACE = BOARD.space
MOBILENET = load_workload("mobilenetv3-train")
INFERENCE = load_workload("mobilenetv3-infer")
POWER_COUNTS = 2.0  # a variance of log power, against one of log time


def predictor(**parameters) -> GaussianPredictor:
    return GaussianPredictor(**{"references": ("orin-agx-resnet18-train",)} | parameters)


def designed(total: int, **parameters) -> DesignedModes:
    modes = parameters.pop("modes", SPACE.arrays)
    return DesignedModes(parameters.pop("predictor", predictor()), modes, total, **parameters)


def measured(modes: list[PowerMode], workload: Workload, sizes: tuple[int, ...] = (16,)) -> list:
    """What the profiler would say of some modes: the cost model's answers."""
    entries = []
    for mode in modes:
        for size in sizes:
            cost = minibatch_cost(BOARD.hardware, workload.signature, *mode.values, size)
            time_s, power_w = float(cost.time_s), float(cost.power_w)
            entries.append(
                ProfiledMode(mode, size, time_s, 0.0, 40, power_w, 0.0, 3, 1, 40 * time_s, True)
            )
    return entries


def steps(sampler: Sampler, workload: Workload, sizes: tuple[int, ...] = (16,)) -> list[list]:
    """The modes that a sampler asks for, step by step, until it asks for none."""
    asked: list[list[PowerMode]] = []
    while len(asked) < 40:
        done = [mode for step in asked for mode in step]
        found = list(sampler.next(measured(done, workload, sizes)))
        if not found:
            return asked
        asked.append(found)
    raise AssertionError(f"it never ends: {asked[-1]}")


def covariances(seed: int, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """A covariance of times and powers of some rows, and their noise."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((2 * n_rows, 2 * n_rows)) * rng.uniform(0.2, 2, (2 * n_rows, 1))
    return root @ root.T, rng.uniform(0.1, 1, 2 * n_rows)


def left_over(covariance: np.ndarray, noise: np.ndarray, modes: list[int], n_sizes: int) -> float:
    """Summed variance once some modes are measured, by the textbook's formula."""
    n_rows = len(noise) // 2
    rows = [n_sizes * mode + k for mode in modes for k in range(n_sizes)]
    at = np.array(rows + [row + n_rows for row in rows], dtype=int)
    gain = covariance[:, at] @ np.linalg.inv(covariance[np.ix_(at, at)] + np.diag(noise[at]))
    variance = np.diag(covariance - gain @ covariance[at])
    return float(variance[:n_rows].sum() + POWER_COUNTS * variance[n_rows:].sum())


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]))
def test_each_pick_is_the_best_single_one_given_those_before(seed, n_sizes):
    n_modes = 6
    covariance, noise = covariances(seed, n_modes * n_sizes)
    picked = most_informative(covariance, noise, n_sizes, np.arange(n_modes), 3)
    for k, pick in enumerate(picked):
        others = [mode for mode in range(n_modes) if mode not in picked[:k]]
        by_hand = [left_over(covariance, noise, [*picked[:k], m], n_sizes) for m in others]
        assert others[int(np.argmin(by_hand))] == pick


@given(st.integers(0, 2**32 - 1), st.sets(st.integers(0, 7)), st.integers(0, 10))
def test_only_free_modes_are_picked_each_once_and_as_many_as_there_are(seed, free, n):
    picked = most_informative(*covariances(seed, 8), 1, np.array(sorted(free), dtype=int), n)
    assert len(picked) == len(set(picked)) == min(n, len(free))
    assert set(picked) <= free


def test_the_informative_modes_leave_less_variance_than_random_ones():
    nothing = MeasurementTable(ModeArrays.of([]), None, np.empty(0), np.empty(0))
    modes = SPACE.thinned(4).arrays
    covariance, noise = predictor().fit(nothing).covariance(modes)
    n = len(modes.cores)
    picked = most_informative(covariance, noise, 1, np.arange(n), 6)
    rng = np.random.default_rng(0)
    random = [list(rng.choice(n, 6, replace=False)) for _ in range(30)]
    found = left_over(covariance, noise, picked, 1)
    assert found < min(left_over(covariance, noise, modes, 1) for modes in random)


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 5)).map(lambda p: (p[0] / 10, float(p[1]))),
        min_size=1,
    )
)
def test_the_fastest_up_to_a_power_is_the_least_time_among_all_of_at_most_that_power(points):
    time_s, power_w = np.array(points).T
    fastest = fastest_up_to(time_s, power_w)
    np.testing.assert_array_equal(fastest, [time_s[power_w <= p].min() for p in power_w])


@pytest.mark.parametrize("total", [1, 5, 6, 7, 13])
def test_it_asks_for_as_many_modes_as_it_may_and_none_twice(total):
    sampler = designed(total)
    asked = [mode for step in steps(sampler, MOBILENET) for mode in step]
    assert sampler.total == len(asked) == len(set(asked)) == total
    assert all(mode in SPACE for mode in asked)


def test_it_asks_for_none_that_an_earlier_run_measured():
    done = measured([SPACE.mode(i) for i in range(0, len(SPACE), 2000)], MOBILENET)
    known = {entry.mode for entry in done}
    found = designed(len(known) + 4).next(done)
    assert len(found) == 4 and not known & set(found)
    assert not designed(len(known)).next(done)


def test_a_small_space_ends_with_all_of_its_modes():
    few = SPACE.thinned(2)
    asked = [mode for step in steps(designed(40, modes=few.arrays), MOBILENET) for mode in step]
    assert sorted(asked) == sorted(few)


def test_it_chooses_only_among_the_modes_given():
    slow = SPACE.subspace(mem_hz=SPACE.mem_hz[:2], cores=(2, 4))
    for step in steps(designed(14, modes=slow.arrays), MOBILENET):
        assert all(mode in slow for mode in step)


def test_once_something_is_known_it_looks_near_the_front_however_few_modes_are_there():
    cost = minibatch_cost(BOARD.hardware, MOBILENET.signature, *SPACE.arrays, 16)
    behind = cost.time_s / fastest_up_to(cost.time_s, cost.power_w)
    near, far = np.flatnonzero(behind < 1.05)[::20], np.flatnonzero(behind > 1.5)
    assert len(near) < 0.03 * len(far)
    modes = SPACE.arrays.take(np.concatenate([near, far]))
    front = {SPACE.mode(int(i)) for i in near}
    later = [
        mode
        for seed in range(3)
        for step in steps(designed(18, modes=modes, random_state=seed), MOBILENET)[1:]
        for mode in step
    ]
    assert len(later) == 36
    assert sum(mode in front for mode in later) >= 6


def test_it_stops_when_the_error_expected_is_small_enough():
    endless = steps(designed(22), MOBILENET)
    sampler = designed(22, time_error=0.03, power_error=0.02)
    asked = steps(sampler, MOBILENET)
    assert 1 < len(asked) < len(endless)
    assert sampler.expected[0] <= 0.03 and sampler.expected[1] <= 0.02
    assert asked == endless[: len(asked)]


@pytest.mark.parametrize("small", ["time_error", "power_error"])
def test_it_stops_only_when_both_errors_are_small_enough(small):
    other = {"time_error": "power_error", "power_error": "time_error"}[small]
    asked = steps(designed(14, **{small: 10.0, other: 1e-6}), MOBILENET)
    assert sum(map(len, asked)) == 14


def test_the_same_seed_asks_for_the_same_modes_and_another_for_others():
    one, again, other = (steps(designed(10, random_state=s), MOBILENET) for s in (1, 1, 2))
    assert one == again != other


def test_batch_sizes_of_a_mode_are_measured_together_and_count_as_one():
    sizes = (1, 16, 64)
    sampler = designed(10, predictor=predictor(kind="infer"), batch_sizes=sizes)
    asked = [mode for step in steps(sampler, INFERENCE, sizes) for mode in step]
    assert len(asked) == len(set(asked)) == 10
    assert sampler.predictor.table_.batch_size.tolist() == list(sizes) * 6


@pytest.mark.parametrize("sizes", [(), (16,), (1, 16, 64)])
def test_the_profiler_measures_what_it_asks_for(sizes):
    workload = INFERENCE
    sampler = designed(8, predictor=predictor(kind="infer"), batch_sizes=sizes)
    table = profile(Twin(BOARD), workload, sampler, MemoryLog(), batch_sizes=sizes)
    assert len(table) == 8 * max(len(sizes), 1)
    assert len({table.modes.mode(i) for i in range(len(table))}) == 8
    for size in sizes:
        assert np.count_nonzero(table.batch_size == size) == 8


def test_ten_designed_modes_predict_all_others_better_than_ten_random_ones():
    twin = Twin(BOARD, unit=3)
    rest = SPACE.thinned(6)
    true_s, true_w = np.array([twin.steady(mode, MOBILENET) for mode in rest]).T

    def errors(sampler: Sampler, seed: int) -> list[float]:
        measured_twin = Twin(BOARD, unit=3, random_state=seed)
        table = profile(measured_twin, MOBILENET, sampler, MemoryLog())
        assert len(table) == 10
        table = MeasurementTable(table.modes, None, table.time_s, table.power_w)
        prediction = predictor().fit(table).predict(rest.arrays)
        time, power = prediction.time_s / true_s - 1, prediction.power_w / true_w - 1
        return [np.mean(np.abs(time)), np.mean(np.abs(power))]

    chosen, random = [], []
    for seed in range(4):
        chosen.append(errors(designed(10, random_state=seed), seed))
        drawn = np.random.default_rng(seed).choice(len(SPACE), 10, replace=False)
        random.append(errors(FixedModes([SPACE.mode(int(i)) for i in drawn]), seed))
    time, power = np.mean(chosen, axis=0) / np.mean(random, axis=0)
    assert time < 0.8 and power < 0.9


def test_a_measurement_far_off_what_is_expected_is_doubted_and_no_other():
    sampler = designed(14)
    done = [mode for step in steps(sampler, MOBILENET) for mode in step]
    left = [mode for mode in (SPACE.mode(i) for i in range(0, len(SPACE), 997)) if mode not in done]
    for entry in measured(left, MOBILENET):
        assert not sampler.doubts(entry)
        assert sampler.doubts(replace(entry, time_s=entry.time_s / 4))
        assert sampler.doubts(replace(entry, power_w=entry.power_w / 2.5))
