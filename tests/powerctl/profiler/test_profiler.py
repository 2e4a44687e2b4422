"""The profiler finds what the twin hides: warm-up left out, power settled, precision reached."""

from __future__ import annotations

import itertools
import json
import math
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from powerctl.boards import load_board
from powerctl.commands.profile import profile_command
from powerctl.devices.table import TableDevice
from powerctl.devices.twin import NO_VARIATION, Twin, Variation
from powerctl.errors import InvalidInput, ModeNotInSpace
from powerctl.measurement import Measurement, MeasurementTable
from powerctl.modes import ModeArrays, PowerMode
from powerctl.profiler import (
    FixedModes,
    Procedure,
    measure_mode,
    profile,
    settled_from,
    switch_order,
)
from powerctl.profiler.profile_log import LogHeader, ProfileLog
from powerctl.workload import load_workload
from tests import warm
from tests.powerctl.profiler.memory_log import MemoryLog
from tests.waiting import await_state

pytestmark = pytest.mark.processes

BOARD = load_board("orin-agx")
WORK = load_workload("resnet18-train")
SPEC = "twin:orin-agx"


def modes_of(n, seed=0):
    rng = np.random.default_rng(seed)
    return [BOARD.space.mode(int(i)) for i in rng.choice(len(BOARD.space), n, replace=False)]


# One mode


@pytest.mark.parametrize("slow", [[20], [20, 6, 3]])
def test_slow_first_minibatches_are_dropped(slow):
    class SlowStart(Twin):
        def apply(self, mode):
            super().apply(mode)
            self.cold = list(slow)

        def execute(self, workload, step=None):
            n = self.cold.pop(0) if self.cold else 1
            return sum(super(SlowStart, self).execute(workload, step) for _ in range(n))

    twin = SlowStart(BOARD)
    result = measure_mode(twin, WORK, BOARD.space.maximum, Procedure())
    assert result.warmup == len(slow)
    assert result.time_s == pytest.approx(twin.steady(BOARD.space.maximum, WORK)[0], rel=0.02)


def test_scattered_times_of_a_slow_cpu_are_not_warm_up():
    twin = Twin(BOARD, variation=replace(NO_VARIATION, minibatch_time=0.25), random_state=3)
    results = [measure_mode(twin, WORK, m, Procedure(max_seconds=30)) for m in modes_of(20)]
    assert sum(result.warmup - 1 for result in results) <= 1


@pytest.mark.parametrize("settling_s", [0.8, 5.0, 10.0])
@pytest.mark.parametrize("variation", [NO_VARIATION, Variation()], ids=["quiet", "noisy"])
def test_power_is_read_once_it_has_settled(settling_s, variation):
    twin = Twin(BOARD, variation=replace(variation, settling_s=settling_s))
    for mode in modes_of(10):
        twin.idle(20)  # so that each starts from far below
        result = measure_mode(twin, WORK, mode, Procedure())
        assert result.precise
        assert result.power_w == pytest.approx(twin.steady(mode, WORK)[1], rel=0.01)


def test_noise_is_not_taken_for_a_trend_nor_a_short_trend_for_noise():
    rng, procedure = np.random.default_rng(0), Procedure()
    starts = [settled_from(40 * (1 + 0.03 * rng.normal(size=30)), procedure) for _ in range(200)]
    assert np.mean([start == 0 for start in starts]) > 0.9
    assert settled_from(np.array([38.0, 39.1, 39.7, 40.2]), procedure) is None
    rising = 40 - 10 * np.exp(-np.arange(20) / 1.5)
    assert settled_from(rising[:8], procedure) is None
    assert 4 <= settled_from(rising, procedure) <= 8


def test_power_that_does_not_settle_in_time_is_said_to_be_imprecise():
    twin = Twin(BOARD, variation=replace(NO_VARIATION, settling_s=30.0))
    result = measure_mode(twin, WORK, BOARD.space.maximum, Procedure(max_seconds=20))
    assert not result.precise
    assert result.n_windows >= 3


def test_a_table_comes_out_exactly_with_the_least_counts(small_table):
    device = TableDevice(BOARD, small_table)
    for row in range(0, len(small_table), 5):
        fact = small_table[row]
        result = measure_mode(device, WORK, fact.mode, Procedure(max_seconds=1e6))
        assert result.time_s == fact.time_s
        assert result.power_w == pytest.approx(fact.power_w, rel=1e-10)
        assert result.precise and result.warmup == 1
        a_window = math.ceil(device.power_period_s / fact.time_s)
        assert result.n_minibatches == max(40, 3 * a_window)


def test_a_noisier_device_takes_more_minibatches_for_the_same_precision():
    counts = []
    for noise in (0.02, 0.15, 0.4):
        twin = Twin(BOARD, variation=replace(NO_VARIATION, minibatch_time=noise))
        result = measure_mode(twin, WORK, BOARD.space.maximum, Procedure())
        assert result.precise
        assert 1.96 * result.time_std / math.sqrt(result.n_minibatches) < 0.02 * result.time_s
        counts.append(result.n_minibatches)
    assert counts == sorted(counts) and counts[2] > 5 * counts[0]


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says():
    twin = Twin(BOARD, variation=replace(NO_VARIATION, minibatch_time=0.1))
    mode = BOARD.space.minimum
    mean_s = twin.steady(mode, WORK)[0] * math.exp(0.1**2 / 2)  # of the lognormal noise
    procedure = Procedure(max_seconds=1e6)
    errors = [measure_mode(twin, WORK, mode, procedure).time_s / mean_s - 1 for _ in range(100)]
    assert np.mean(np.abs(errors) < 0.02) >= 0.88


@pytest.mark.parametrize("limit", [{"max_minibatches": 50}, {"max_seconds": 4.0}])
def test_limits_of_a_mode_end_it_and_are_said(limit):
    twin = Twin(BOARD, variation=replace(NO_VARIATION, minibatch_time=0.5))
    result = measure_mode(twin, WORK, BOARD.space.maximum, Procedure(**limit))
    assert not result.precise
    assert result.n_minibatches <= limit.get("max_minibatches", math.inf)
    assert result.seconds < limit.get("max_seconds", math.inf) + 1


def test_the_least_that_is_measured_is_one_minibatch_after_the_first():
    table = MeasurementTable.of([Measurement(BOARD.space.maximum, 0.5, 40.0)])
    device = TableDevice(BOARD, table)
    result = measure_mode(device, WORK, BOARD.space.maximum, Procedure(max_seconds=0.1))
    assert (result.n_minibatches, result.n_windows, result.precise) == (1, 1, False)
    assert (result.time_s, result.power_w) == (0.5, 40.0)


def test_a_sensor_that_does_not_count_is_an_error():
    class Dead(Twin):
        def energy_j(self):
            return 0.0

    with pytest.raises(InvalidInput, match=r"0 W over \d+ minibatches; check"):
        measure_mode(Dead(BOARD), WORK, BOARD.space.maximum, Procedure())


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_minibatches": 1},
        {"min_power_windows": 0},
        {"time_error": 0},
        {"power_error": 1.5},
        {"max_minibatches": 10},
        {"max_seconds": math.inf},
    ],
)
def test_a_procedure_names_the_field_that_is_wrong(wrong):
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        Procedure(**wrong)


# Many modes


def test_a_profile_is_the_modes_asked_for_and_the_device_is_restored():
    twin, modes = Twin(BOARD), modes_of(12)
    steps, seen = itertools.count(), []
    table = profile(
        twin,
        WORK,
        FixedModes([*modes, modes[0]]),
        log := MemoryLog(),
        step=lambda: next(steps),
        progress=seen.append,
    )
    assert sorted(table.modes.mode(i) for i in range(len(table))) == sorted(modes)
    assert twin.mode() == BOARD.space.maximum
    assert next(steps) == sum(e.n_minibatches + e.warmup for e in log.entries)
    assert [p.done for p in seen] == list(range(13)) and {p.total for p in seen} == {12}
    assert [p.mode for p in seen] == [*(e.mode for e in log.entries), None]
    mean = np.mean([e.seconds for e in log.entries[:5]])
    assert math.isnan(seen[0].seconds_left)
    assert seen[5].seconds_left == pytest.approx(7 * mean) and seen[12].seconds_left == 0


def test_a_second_profile_measures_only_what_is_missing():
    modes, log = modes_of(8), MemoryLog()
    profile(Twin(BOARD), WORK, FixedModes(modes[:5]), log)
    first = log.entries
    profile(Twin(BOARD), WORK, FixedModes(modes), log)
    assert log.entries[:5] == first
    assert {e.mode for e in log.entries} == set(modes) and len(log.entries) == 8


def test_a_stopped_profile_restores_the_device_and_keeps_what_it_has():
    twin, log, calls = Twin(BOARD), MemoryLog(), itertools.count()

    def step():
        if next(calls) == 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile(twin, WORK, FixedModes(modes_of(10)), log, step=step)
    assert twin.mode() == BOARD.space.maximum and 0 < len(log.entries) < 10


def test_the_time_budget_is_kept_and_what_is_left_out_is_said():
    modes, whole = modes_of(40), MemoryLog()
    profile(Twin(BOARD), WORK, FixedModes(modes), whole)
    needed_s = sum(e.seconds for e in whole.entries)
    for budget_s in (0.25 * needed_s, 0.6 * needed_s):
        twin, log, seen = Twin(BOARD), MemoryLog(), []
        profile(twin, WORK, FixedModes(modes), log, budget_s=budget_s, progress=seen.append)
        # A mode may take longer than any before it, but no mode is begun without time for it.
        assert twin.now() <= budget_s + max(e.seconds for e in whole.entries)
        assert seen[-1].left_out == 40 - len(log.entries) > 0
        assert all(p.budget_left_s > 0 for p in seen[:-1])
        assert len(log.entries) > 5


def test_a_mode_is_not_begun_when_those_before_took_longer_than_what_is_left():
    modes = list(BOARD.space.thinned(2))
    table = MeasurementTable.of([Measurement(mode, 0.25, 20.0) for mode in modes])
    each_s, log, device = 41 * 0.25, MemoryLog(), TableDevice(BOARD, table)
    profile(device, WORK, FixedModes(modes), log, budget_s=4.5 * each_s)
    assert len(log.entries) == 4 and device.now() == pytest.approx(4 * each_s)


def test_several_batch_sizes_are_measured_in_each_mode_and_resumed_between():
    work, modes, log = load_workload("resnet50-infer"), modes_of(4), MemoryLog()
    twin, sizes = Twin(BOARD), (1, 4, 16)
    profile(twin, work, FixedModes(modes[:1]), log, batch_sizes=sizes)
    del log._entries[2]
    ran = []
    steps = {size: lambda size=size: ran.append(size) for size in sizes}
    table = profile(twin, work, FixedModes(modes), log, batch_sizes=sizes, step=steps)
    assert {(e.mode, e.batch_size) for e in log.entries} == set(itertools.product(modes, sizes))
    assert len(table) == 12 and table.batch_size is not None
    assert [e.batch_size for e in log.entries[2:] if e.mode != modes[0]] == 3 * [1, 4, 16]
    in_turn = [size for size, _ in itertools.groupby(ran)]
    assert in_turn.count(1) == in_turn.count(4) == 3
    for entry in log.entries:
        expected = twin.steady(entry.mode, work.with_batch_size(entry.batch_size))[0]
        assert entry.time_s == pytest.approx(expected, rel=0.04)


def test_one_step_cannot_run_several_batch_sizes():
    with pytest.raises(InvalidInput, match="mapping of batch size to step"):
        profile(Twin(BOARD), WORK, FixedModes([]), MemoryLog(), batch_sizes=(1, 4), step=print)


def test_a_mode_that_the_table_does_not_hold_is_an_error(small_table):
    # The table lacks its grid's two ends; the upper one is the mode found, and restored.
    device = TableDevice(BOARD, small_table.take(np.arange(1, len(small_table) - 1)))
    modes, log = [small_table.modes.mode(0), small_table.modes.mode(7)], MemoryLog()
    with pytest.raises(ModeNotInSpace, match=r"cannot profile resnet18-train in .* not measured"):
        profile(device, WORK, FixedModes(modes), log)
    assert [entry.mode for entry in log.entries] == modes[1:]
    assert device.mode() == device.space.maximum


def test_a_mode_outside_the_board_is_an_error_before_anything_runs():
    twin, odd = Twin(BOARD), PowerMode(12, 1, 2, 3)
    with pytest.raises(ModeNotInSpace, match="cpu"):
        profile(twin, WORK, FixedModes([BOARD.space.minimum, odd]), MemoryLog())
    assert twin.now() == 0


def test_an_adaptive_sampler_sees_what_was_measured():
    class Fastest:
        """Three modes, then the neighbours of the fastest."""

        total = 20

        def next(self, measured):
            if not measured:
                return modes_of(3)
            best = min(measured, key=lambda entry: entry.time_s)
            near = [BOARD.space.mode(abs(index(best) + step)) for step in (-1, 1)]
            return [] if len(measured) > 3 else near

    def index(entry):
        return int(BOARD.space.indices(ModeArrays.of([entry.mode]))[0])

    log = MemoryLog()
    profile(Twin(BOARD), WORK, Fastest(), log)
    best = min(log.entries[:3], key=lambda entry: entry.time_s)
    near = {abs(index(best) + step) for step in (-1, 1)}
    assert {index(entry) for entry in log.entries[3:]} == near


def test_a_sampler_that_never_ends_is_an_error():
    class Stuck:
        total = 1

        def next(self, measured):
            return [BOARD.space.maximum]

    with pytest.raises(InvalidInput, match="Stuck asks only for modes that are measured already"):
        profile(Twin(BOARD), WORK, Stuck(), MemoryLog())


# The order of modes


def changes(modes):
    """Changes of an axis along a path."""
    pairs = itertools.pairwise(mode.values for mode in modes)
    return sum(a != b for old, new in pairs for a, b in zip(old, new, strict=True))


some_modes = st.lists(st.integers(0, len(BOARD.space) - 1), max_size=25).map(
    lambda numbers: [BOARD.space.mode(i) for i in numbers]
)
few_values = st.lists(st.tuples(*[st.integers(1, 3)] * 4), max_size=40).map(
    lambda rows: [PowerMode(*row) for row in rows]
)


@given(modes=some_modes | few_values, start=st.none() | st.just(BOARD.space.maximum))
def test_the_order_is_of_the_same_modes_with_no_more_changes(modes, start):
    ordered = switch_order(modes, start)
    assert sorted(ordered) == sorted(modes)
    before = [] if start is None else [start]
    assert changes([*before, *ordered]) <= changes([*before, *modes])


@given(modes=some_modes, seed=st.integers(0, 9))
def test_the_order_costs_about_the_same_however_the_modes_are_given(modes, seed):
    shuffled = [modes[i] for i in np.random.default_rng(seed).permutation(len(modes))]
    cost, other = changes(switch_order(modes)), changes(switch_order(shuffled))
    assert abs(cost - other) <= 4 + 0.2 * max(cost, other)


def test_a_full_grid_changes_one_axis_at_a_time():
    grid = list(BOARD.space.thinned(5))
    shuffled = [grid[i] for i in np.random.default_rng(0).permutation(len(grid))]
    assert changes(switch_order(shuffled)) == len(grid) - 1


def test_scattered_modes_share_axes_with_those_next_to_them():
    scattered = modes_of(300)
    assert changes(switch_order(scattered)) < 0.6 * changes(scattered)


def test_one_axis_is_walked_downwards():
    top = BOARD.space.maximum
    line = [replace(top, gpu_hz=clock) for clock in BOARD.space.gpu_hz]
    assert switch_order(line, top) == line[::-1]


# The command


def run_command(*arguments):
    return CliRunner().invoke(profile_command, [str(a) for a in arguments])


def test_the_command_profiles_writes_and_sums_up(tmp_path):
    log, csv = tmp_path / "run.jsonl", tmp_path / "table.csv"
    done = run_command("--device", SPEC, "--modes", 8, "--out", log, "--csv", csv)
    assert done.exit_code == 0, done.output
    assert "virtual time" in done.stdout and str(csv) in done.stdout
    assert len(MeasurementTable.read(csv, BOARD.space)) == 8
    again = run_command("--device", SPEC, "--modes", 10, "--out", log, "--json")
    result = json.loads(again.stdout)
    assert (result["modes"], result["left_out"], result["not_precise"]) == (10, 0, 0)
    assert len(ProfileLog.read(log).entries) == 10


def test_the_command_replays_a_table(tmp_path, small_csv, small_table):
    csv = tmp_path / "again.csv"
    arguments = ("--workload", "resnet18-train", "--out", tmp_path / "log", "--csv", csv)
    done = run_command("--device", f"table:{small_csv}", "--all", "--batch", "16", *arguments)
    assert done.exit_code == 0, done.output
    table = MeasurementTable.read(csv)
    facts = {table[i].mode: table[i] for i in range(len(table))}
    assert len(facts) == len(small_table)
    for row in range(len(small_table)):
        fact = facts[small_table[row].mode]
        assert fact.time_s == pytest.approx(small_table[row].time_s, rel=1e-5)
        assert fact.power_w == pytest.approx(small_table[row].power_w, rel=1e-5)


def test_the_command_says_what_a_budget_left_out(tmp_path):
    out = tmp_path / "log"
    done = run_command("--device", SPEC, "--per-axis", 3, "--budget", "2m", "--out", out)
    assert "left out: not expected to end in the budget" in done.stdout
    asked = ("--mode", "maxn", "--mode", "4c/1190/522/2133", "--batch", "1,4")
    done = run_command("--device", SPEC, *asked, "--out", tmp_path / "two", "--json")
    assert json.loads(done.stdout)["measurements"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--modes", "3", "--budget", "20"), "20s or 20m?"),
        (("--modes", "3", "--time-error", "two"), "write a share of at least 0: 2%, 0.02"),
        (("--modes", "3", "--batch", "1,x"), "write whole numbers such as 1,4,16"),
        (("--modes", "30000"), "there are only 18,096"),
        (("--modes", "3", "--task", "nosuch"), "there is no module nosuch"),
        (("--modes", "3", "--task", "os:getcwd"), "has no function make_model"),
        (("--modes", "3", "--task", "json"), "json has no function make_model"),
        (("--modes", "3", "--set", "a=1"), "give --task"),
        (("--modes", "3", "--task", "json", "--set", "a"), "write KEY=VALUE"),
        (("--modes", "3", "--csv", "/no/such/t.csv"), "no folder"),
        (("--modes", "3", "--all"), "give one of"),
        ((), "give one of"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, arguments, message):
    done = run_command("--device", SPEC, "--out", tmp_path / "log", *arguments)
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)


# Doubted measurements


class Glitch(Twin):
    """A twin that runs four times as fast as it should in a mode, the first time it is set."""

    def __init__(self, mode):
        super().__init__(BOARD)
        self.glitch, self.times_set = mode, []

    def apply(self, mode):
        super().apply(mode)
        self.times_set.append(mode)

    def execute(self, workload, step=None):
        is_first = self.times_set.count(self.glitch) == 1 and self.mode() == self.glitch
        return super().execute(workload, step) / (4 if is_first else 1)


@dataclass(frozen=True)
class Doubter(FixedModes):
    """Knows a bound of the time, below which it believes nothing."""

    least_s: float = 0.0

    def doubts(self, entry):
        return entry.time_s < self.least_s


def test_a_doubted_measurement_is_made_again_and_the_second_counts():
    times_s = {mode: Twin(BOARD).steady(mode, WORK)[0] for mode in modes_of(3)}
    fastest = min(times_s, key=times_s.__getitem__)
    sampler = Doubter([*times_s], times_s[fastest] / 2)
    twin, reports = Glitch(fastest), []
    table = profile(twin, WORK, sampler, MemoryLog(), progress=reports.append)
    row = table.find(fastest, WORK.batch_size)
    assert table.time_s[row] == pytest.approx(times_s[fastest], rel=0.05)
    assert twin.times_set.count(fastest) == 2
    assert reports[-1].repeated == 1


def test_without_time_for_another_a_doubted_measurement_stands():
    mode = modes_of(1)[0]
    once = measure_mode(Glitch(mode), WORK, mode, Procedure()).seconds
    sampler = Doubter([mode], math.inf)
    twin = Glitch(mode)
    table = profile(twin, WORK, sampler, MemoryLog(), budget_s=1.5 * once)
    assert len(table) == 1 and twin.times_set.count(mode) == 1


# Real processes, killed

_KILLED = """
import sys, time
from tests.powerctl.profiler.test_profiler import *
with ProfileLog.open(sys.argv[1], LogHeader.of(Twin(BOARD), SPEC, WORK, Procedure())) as log:
    profile(Twin(BOARD), WORK, FixedModes(modes_of(30)), log, step=lambda: time.sleep(0.0005))
"""


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("torn", [False, True], ids=["killed", "and-torn"])
def test_a_profile_goes_on_after_kill_9(tmp_path, torn):
    path, modes = tmp_path / "log.jsonl", modes_of(30)
    process = warm.Popen([sys.executable, "-c", _KILLED, path])
    try:
        await_state(lambda: lines(path) > 5, lambda: process.poll() is None, 0.01)
    finally:
        process.kill()
        process.wait()
    if torn:
        os.truncate(path, path.stat().st_size - 50)
    kept = list(ProfileLog.read(path).entries)
    assert 4 <= len(kept) < 30
    twin = Twin(BOARD)
    with ProfileLog.open(path, LogHeader.of(twin, SPEC, WORK, Procedure())) as log:
        table = profile(twin, WORK, FixedModes(modes), log)
    assert ProfileLog.read(path).entries[: len(kept)] == tuple(kept)
    assert sorted(table.modes.mode(i) for i in range(len(table))) == sorted(modes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_stops_cleanly_and_goes_on(tmp_path, number):
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, and so by what is started")
    (tmp_path / "mine.py").write_text(
        "import time, torch\n"
        "def make_model(): return torch.nn.Linear(1, 1)\n"
        "def load_data(batch_size): return [batch_size] * 10\n"
        "def train_step(batch): time.sleep(0.01 / batch)\n"
        "def test(): ...\n"
    )
    code = "from powerctl import console; from powerctl.commands import profile as p; "
    code += "import sys; sys.argv[0] = 'profile'; console.run(p.profile_command)"
    command = [sys.executable, "-c", code, "--device", SPEC, "--modes", "12"]
    command += ["--out", "log.jsonl", "--task", "mine.py"]
    place = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": os.getcwd()}}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = warm.Popen(command, **pipes, **place)
    await_state(lambda: lines(tmp_path / "log.jsonl") > 2, lambda: process.poll() is None, 0.01)
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 128 + number and out == ""
    assert "the device is restored" in err
    named = shlex.split(err.rpartition("to go on: profile ")[2])
    done = warm.run([*command[:3], *named], **place)
    assert done.returncode == 0 and done.stdout.splitlines()[1].split()[0] == "12"
    assert len(ProfileLog.read(tmp_path / "log.jsonl").entries) == 12
