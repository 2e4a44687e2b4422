"""`powerctl solve`: which problem the flags make, what is measured for it, kept and told."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
from click.testing import CliRunner

from powerctl.boards import load_board
from powerctl.commands import searching
from powerctl.commands.solve import solve_command
from powerctl.devices.twin import Twin
from powerctl.errors import PowerctlError
from powerctl.fulcrum import sources as measured_on
from powerctl.fulcrum.problems import Concurrent, InferAlone, TrainAlone, TwoInferences
from powerctl.fulcrum.replay import Replay
from powerctl.fulcrum.search import best_of
from powerctl.measurement import MeasurementTable
from powerctl.workload import load_workload
from tests import warm
from tests.powerctl.fulcrum.conftest import twin_table

SIZES = (1, 4, 16, 64)
SERVED = ("--rate", 60, "--latency", "1.5s")
GMD = ("--solver", "gmd")


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """The tables of the replay, on disc."""
    folder, space = tmp_path_factory.mktemp("tables"), load_board("orin-agx").space.thinned(4)
    twin_table("resnet18-train", space).write(folder / "train.csv")
    twin_table("mobilenetv3-infer", space, SIZES).write(folder / "infer.csv")
    twin_table("resnet50-infer", space, SIZES).write(folder / "background.csv")
    return folder


@pytest.fixture(scope="session")
def replay(tables):
    """What they say together."""
    roles = ("train", "infer", "background")
    return Replay.of({r: MeasurementTable.read(tables / f"{r}.csv") for r in roles}, "orin-agx")


def invoke(*arguments):
    return CliRunner().invoke(solve_command, [str(a) for a in arguments], catch_exceptions=False)


def solved(*arguments):
    """What a solved problem says as JSON."""
    done = invoke(*arguments, *GMD, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def message(*arguments):
    """What a command line that fails says."""
    try:
        done = invoke(*arguments)
    except PowerctlError as error:
        return str(error)
    assert done.exit_code != 0, done.output
    return done.stderr


def roles(tables, *names):
    return [part for name in names for part in (f"--{name}", tables / f"{name}.csv")]


CASES = {
    "train": (("train",), (), TrainAlone(40.0)),
    "train, energy": (("train",), ("--energy", 3), TrainAlone(40.0, 3.0)),
    "infer": (("infer",), SERVED, InferAlone(40.0, 60.0, 1.5, SIZES)),
    "infer, sizes": (
        ("infer",),
        ("--rate", 60, "--latency", "200ms", "--batch", "16,4"),
        InferAlone(40.0, 60.0, 0.2, (4, 16)),
    ),
    "both": (("train", "infer"), SERVED, Concurrent(40.0, 60.0, 1.5, SIZES)),
    "both, as published": (
        ("train", "infer"),
        (*SERVED, "--objective", "count", "--no-guard"),
        Concurrent(40.0, 60.0, 1.5, SIZES, objective="count", guard=False),
    ),
    "background": (
        ("infer", "background"),
        (*SERVED, "--background-batch", "4,16", "--background-latency", 0.5),
        TwoInferences(40.0, 60.0, 1.5, SIZES, (4, 16), 0.5),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_roles_that_are_given_make_the_problem(tables, replay, case):
    names, flags, problem = CASES[case]
    answer = solved(*roles(tables, *names), "--power", 40, *flags)
    assert answer["problem"] == problem.describe() and answer["goal"] == problem.goal
    assert answer["solved"] and answer["modes_profiled"] <= 15
    assert answer["figures"]["power_w"] <= 40
    best = problem.evaluate(*replay.columns(problem.jobs))
    optimum = problem.value(float(best.loss[best_of(best)]))
    ratio = answer["value"] / optimum
    assert ratio <= 1 + 1e-4 if problem.maximised else ratio >= 1 - 1e-4


def test_all_modes_measured_give_the_optimum(tables, replay):
    done = invoke(
        *roles(tables, "train"), "--power", 40, "--solver", "optimal", "--json", "--no-reference"
    )
    best = replay.record.time_s[replay.record.power_w[:, 0] <= 40, 0].min()
    assert json.loads(done.stdout)["value"] == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --train, --infer or both"),
        (("--background", "x"), "give --train, --infer or both"),
        (("--train", "x", "--infer", "y", "--background", "z"), "and without --train"),
        (("--infer", "x"), "--infer needs --rate and --latency"),
        (("--train", "x", "--rate", 60), "--rate means nothing here: give --infer"),
        (("--train", "x", "--batch", 4), "--batch means nothing here"),
        (("--infer", "x", *SERVED, "--objective", "rate"), "give --train and --infer"),
        (("--train", "resnet18-train"), "workloads need --device"),
        (("--train", "lstm", "--device", "twin:orin-agx"), "unknown workload"),
        (("--train", "resnet50-infer", "--device", "twin:orin-agx"), "of kind infer, not train"),
        (("--train", "t.csv", "--device", "twin:orin-agx"), "is a table, which needs no --device"),
        (("--train", "resnet18-train", "--device", "twin:agx"), "agx"),
        (("--train", "nowhere.csv"), "nowhere.csv"),
        (("--train", "t.csv", "--task", "a.py"), "--task needs --device"),
        (("--train", "t.csv", "--out", "no/where/x"), "there is no folder"),
        (("--train", "t.csv", "--reference", "x", "--no-reference"), "not both"),
        (("--train", "t.csv", "--solver", "best"), "unknown solver"),
        (("--train", "t.csv", "--infer", "i.csv", *SERVED, "--device", "table:t.csv"), "one work"),
    ],
)
def test_flags_that_make_no_problem_are_refused(arguments, said):
    assert said in message("--power", 40, *arguments)


def test_a_batch_size_that_no_table_has_is_refused(tables):
    flags = (*roles(tables, "infer"), *SERVED, "--power", 40, "--batch", "4,5")
    assert "has the batch sizes 1, 4, 16, 64, not 5" in message(*flags)


def test_a_table_of_the_wrong_kind_is_refused(tables):
    train, infer = tables / "train.csv", tables / "infer.csv"
    assert "no column batch_size" in message("--infer", train, *SERVED, "--power", 40)
    assert "several batch sizes" in message("--train", infer, "--power", 40)


def test_a_table_device_is_its_table(tables):
    device = ("--device", f"table:{tables / 'train.csv'}", "--train", "resnet18-train")
    asked = ("--power", 40)
    answer, same = solved(*device, *asked), solved(*roles(tables, "train"), *asked)
    assert answer == same


def test_a_sub_grid_of_a_table(tables):
    answer = solved(*roles(tables, "train"), "--power", 40, "--per-axis", 2)
    ends = load_board("orin-agx").space.thinned(2)
    assert all(ends.parse(one["mode"]) in ends for one in answer["measured"])


# Nothing feasible


def test_nothing_feasible_is_exit_code_1_and_names_the_nearest(tables):
    done = invoke(*roles(tables, "train"), "--power", 9, *GMD, "--json")
    answer = json.loads(done.stdout)
    assert done.exit_code == 1 and not answer["solved"] and answer["mode"] is None
    nearest = min(answer["measured"], key=lambda one: one["power_w"])
    assert f"{nearest['mode']}: power {nearest['power_w']:.4g} W (at most 9 W)" in done.stderr


def test_a_batch_that_cannot_fill_is_said(tables):
    flags = ("--rate", 1, "--latency", "500ms", "--power", 40)
    assert "no batch fills within the latency" in message(*roles(tables, "infer"), *flags, *GMD)


def test_a_cap_of_none_measures_nothing(tables):
    flags = ("--power", 40, "--cap", 0)
    assert "allow more modes with --cap" in message(*roles(tables, "train"), *flags, *GMD)


# Told


def test_each_mode_is_told_of_with_the_best_so_far(tables):
    done = invoke(*roles(tables, "train"), "--power", 40, *GMD, "--cap", 6)
    lines = done.stderr.splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"mode {i} of 6" for i in range(1, 7)]
    assert all("best so far" in line or "nothing feasible yet" in line for line in lines)


def test_what_was_measured_is_shown_with_the_answer_and_its_limits(tables):
    done = invoke(*roles(tables, "train", "infer"), *SERVED, "--power", 40, *GMD, "--cap", 8)
    lines = done.stdout.splitlines()
    assert "train (ms)" in lines[0] and "infer batch" in lines[0] and "bounds" in lines[0]
    assert all(
        line.endswith("kept") or "at most" in line or "no whole" in line for line in lines[1:9]
    )
    assert lines[9].startswith("answer: ") and "training minibatches/s" in lines[9]
    assert any(line.startswith("latency ") and line.endswith("  1.5 s") for line in lines[10:-1])
    assert "gmd measured 8 modes and ended: the cap of 8 modes" in lines[-1]


def test_on_a_terminal_of_80_columns_no_line_of_the_table_is_longer(tables):
    code = "from powerctl.cli import main; main()"
    asked = [*roles(tables, "train", "infer"), *SERVED, "--power", 30, *GMD, "--cap", 8]
    shown, terminal = pty.openpty()
    with warm.Popen(
        [sys.executable, "-c", code, "solve", *map(str, asked)],
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "80"},
    ) as process:
        os.close(terminal)
        said = b""
        with suppress(OSError):  # the terminal's end is an error
            while part := os.read(shown, 4096):
                said += part
    os.close(shown)
    assert process.returncode == 0
    lines = said.decode().partition("answer:")[0].splitlines()
    assert len(lines) > 5 and max(map(len, lines)) <= 80
    assert "(at most " in said.decode()


# Kept


def test_measured_rows_are_tables_that_the_next_problem_starts_from(tables, tmp_path):
    out = tmp_path / "measured"
    both = (*roles(tables, "train", "infer"), "--power", 40, "--latency", "1.5s")
    first = solved(*both, "--rate", 60, "--out", out)
    train = MeasurementTable.read(out / "train.csv")
    infer = MeasurementTable.read(out / "infer.csv")
    assert len(train) + len(infer) == len(first["measured"])
    again = solved(*both, "--rate", 60, "--known", out)
    assert again["value"] >= first["value"] * (1 - 1e-6)
    nothing_new = solved(*both, "--rate", 60, "--known", out, "--cap", 0)
    assert nothing_new["mode"] == first["mode"] and nothing_new["measured"] == []
    alone = solved(*roles(tables, "train"), "--power", 40, "--known", out, "--out", out)
    assert len(MeasurementTable.read(out / "train.csv")) == len(train) + len(alone["measured"])
    assert len(MeasurementTable.read(out / "infer.csv")) == len(infer)


def test_a_file_of_a_role_may_be_known(tables):
    known = ("--known", f"train={tables / 'train.csv'}", "--cap", 0)
    assert solved(*roles(tables, "train"), "--power", 40, *known)["measured"] == []


@pytest.mark.parametrize("known", ["nowhere", "tables=x.csv"])
def test_what_is_not_known_is_refused(tables, known):
    flags = (*roles(tables, "train"), "--power", 40, "--known", known)
    assert "write ROLE=FILE" in message(*flags)


def test_a_picture_is_written(tables, tmp_path):
    path = tmp_path / "search.png"
    for names, flags in ((("train",), ()), (("infer",), SERVED), (("train", "infer"), SERVED)):
        solved(*roles(tables, *names), "--power", 40, *flags, "--plot", path)
        assert path.read_bytes().startswith(b"\x89PNG")
        path.unlink()
    invoke(*roles(tables, "train"), "--power", 9, *GMD, "--plot", path)
    assert path.exists()


# On a device


@pytest.fixture
def twin(monkeypatch):
    """The device that the command opens."""
    device = Twin(load_board("orin-agx"))
    monkeypatch.setattr(searching, "open_device", lambda spec, random_state: device)
    return device


TWIN = ("--device", "twin:orin-agx", "--power", 40, "--per-axis", 3)


def test_a_device_is_profiled_and_restored(twin):
    found = twin.mode()
    answer = solved(
        *TWIN, "--train", "resnet18-train", "--infer", "mobilenetv3-infer", *SERVED, "--cap", 5
    )
    assert answer["modes_profiled"] <= 5 and twin.mode() == found
    assert answer["device_time_s"] == pytest.approx(twin.now(), rel=0.05)
    one = next(m for m in answer["measured"] if m["role"] == "train")
    job = load_workload("resnet18-train")
    steady = twin.steady(twin.space.parse(one["mode"]), job)
    assert (one["time_s"], one["power_w"]) == pytest.approx(steady, rel=0.05)


def test_a_task_of_ones_own_runs_with_the_batch_size_that_is_measured(twin, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "solved_task.py").write_text(
        "import torch\n"
        "ran = []\n"
        "def make_model(): return torch.nn.Linear(1, 1)\n"
        "def load_data(batch_size): return ['train'] * 30, [batch_size] * 30\n"
        "def train(trainloader, epochs):\n"
        "    for _ in range(epochs): ran.extend(trainloader)\n"
        "def test(testloader, loss):\n"
        "    for size in testloader: ran.append(size)\n"
        "    return loss\n"
    )
    steps = ("--task", "train=solved_task", "--task", "infer=solved_task", "--set", "loss=0.5")
    both = ("--train", "resnet18-train", "--infer", "mobilenetv3-infer", "--batch", "4,16")
    answer = solved(*TWIN, *both, *SERVED, *steps, "--cap", 3)
    import solved_task

    measured = {one["batch_size"] or "train" for one in answer["measured"]}
    assert set(solved_task.ran) == measured and len(solved_task.ran) > 40 * len(answer["measured"])
    assert "write ROLE=my_task.py" in message(*TWIN, *both, *SERVED, "--task", "solved_task.py")


def test_a_stopped_search_keeps_what_was_measured_and_restores_the_device(
    twin, monkeypatch, tmp_path
):
    out, found, count = tmp_path / "measured", twin.mode(), 0
    measure = measured_on.measure_mode

    def stopped_in_the_third(*arguments):
        nonlocal count
        count += 1
        if count == 3:
            signal.raise_signal(signal.SIGINT)
        return measure(*arguments)

    monkeypatch.setattr(measured_on, "measure_mode", stopped_in_the_third)
    done = invoke(*TWIN, "--train", "resnet18-train", "--out", out, *GMD)
    assert done.exit_code == 128 + signal.SIGINT
    assert "stopped by SIGINT, the device is restored" in done.stderr
    assert f"--known {out}" in done.stderr
    assert len(MeasurementTable.read(out / "train.csv")) == 2 and twin.mode() == found


def test_a_twins_noise_is_of_the_seed():
    train = ("--train", "resnet18-train", "--cap", 3)
    first, again, other = (solved(*TWIN, *train, "--seed", seed) for seed in (1, 1, 2))
    assert first == again
    assert not np.isclose(first["measured"][0]["time_s"], other["measured"][0]["time_s"], rtol=1e-9)


def test_counts_of_a_model_are_a_start(as_json):
    said = as_json(
        *("solve", "--device", "twin:orin-agx", "--per-axis", 3, "--train", "resnet18-train"),
        *("--counts", "train=resnet18", "--no-reference", "--power", 30, "--cap", 4),
    )
    assert said["solved"] if "solved" in said else said["mode"]


def test_counts_that_cannot_be_read_are_refused(failing):
    asked = ("--device", "twin:orin-agx", "--train", "resnet18-train", "--power", 30)
    assert "train=resnet18" in failing("solve", *asked, "--counts", "resnet18")
