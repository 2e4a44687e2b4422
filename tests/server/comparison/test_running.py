"""A comparison on disk: what finishes is kept, what is lacking runs, and nothing is mixed up."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
from dataclasses import replace
from multiprocessing.context import SpawnProcess

import click
import pytest

from powerctl import progress
from powerctl.errors import InvalidInput, UnknownName
from tests import warm
from tests.server.comparison.running import run
from tests.waiting import await_state
from wattfed.server.comparison.comparison_progress import ComparisonProgress
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.measures import measures_of
from wattfed.server.comparison.running import (
    Finished,
    checked_runs,
    run_comparison,
    runs_at_once,
)
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes


def files(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.suffix in (".csv", ".jsonl", ".json") and file.name != "config.json"
    }


def test_every_run_is_kept_and_measured(whole, comparison):
    measures = measures_of(whole, comparison)
    assert [(m.strategy, m.power, m.seed) for m in measures] == [
        ("random", "maxn", 0),
        ("pace", "joint", 0),
        ("random", "maxn", 1),
        ("pace", "joint", 1),
    ]
    assert all(0 < m.jain_fairness <= 1 and m.energy_j > 0 for m in measures)
    for m in measures:
        parts_j = m.train_energy_j + m.transfer_energy_j + m.wait_energy_j
        parts_j += m.overhead_energy_j + m.supply_energy_j
        assert m.energy_j == pytest.approx(parts_j) and m.wasted_energy_j == 0
    # two of the four boards break their limit at MAXN, and none with pace
    assert all((m.power_violations > 0) == (m.power == "maxn") for m in measures)


def test_processes_of_a_run_stay_for_the_next_one(whole, comparison, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        SpawnProcess, "start", lambda self, start=SpawnProcess.start: started.append(start(self))
    )
    asked = replace(comparison, base=replace(comparison.base, workers=2))
    run(tmp_path, asked, jobs=1)
    assert files(tmp_path / "runs") == files(whole.path / "runs") and len(started) == 2


def rounds_told(folder, asked, jobs):
    """By run, the rounds that were told while it went on, and its end."""
    told = {config.run_name: [] for config in asked.runs()}
    run_comparison(
        ComparisonFolder(folder),
        asked,
        jobs,
        lambda *_: None,
        lambda done: told[done.config.run_name].append("ended"),
        lambda config, rounds: told[config.run_name].append(rounds),
    )
    return [*told.values()]


def test_worker_processes_give_the_same_runs_and_tell_of_each_round(whole, comparison, tmp_path):
    told = rounds_told(tmp_path, comparison, jobs=2)
    assert told == 4 * [[*range(comparison.base.rounds + 1), "ended"]]
    assert files(tmp_path) == files(whole.path)
    assert not multiprocessing.active_children()


def test_each_round_of_a_run_in_this_process_is_told_while_it_goes_on(comparison, tmp_path):
    asked = replace(comparison, seeds=(0,), strategies=("random",))
    assert rounds_told(tmp_path, asked, jobs=1) == [[*range(comparison.base.rounds + 1), "ended"]]


def test_where_the_runs_under_way_stand_is_shown(comparison, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_QUIET_S", 0.0)
    monkeypatch.setattr(progress, "_HEARTBEAT_S", 0.01)
    one, other, *_ = comparison.runs()
    said = ""

    def told(words):
        nonlocal said
        said += capsys.readouterr().err
        return words in said

    with ComparisonProgress(tmp_path, at_once=2) as shown:
        shown.started(4, 1)
        shown.part(one, one.rounds)
        shown.part(other, 1)
        await_state(
            lambda: told(f"runs 2 of 4, pace, 2 a round, seed 0, round 1 of {other.rounds}")
        )
        shown.show(Finished(one, outcome="accuracy 0.9"))
        await_state(lambda: told("runs 2 of 4, about "))
    assert "random at maxn, 2 a round, seed 0: accuracy 0.9" in said


def test_who_stops_a_comparison_is_shown_what_has_finished(whole, capsys):
    """Also where the baseline is not among it, or the folder goes away."""
    with click.Context(click.Command("wattfed"), info_name="wattfed"):
        shown = ComparisonProgress(whole.path)
        assert shown.so_far("", "a network").startswith("no run is finished")
        assert "a network" not in capsys.readouterr().out
        shown.started(6, 4)
        assert f"4 of 6 runs are finished in {whole.path}" in shown.so_far("oort:maxn", "a network")
        assert "beside random at maxn with as many" in capsys.readouterr().out
        passing = ComparisonProgress(whole.path, is_kept=False)
        assert passing.saved().endswith("--out FOLDER")


@pytest.mark.parametrize(
    ("workers", "jobs", "at_once"),
    [(0, 0, 4), (1, 0, 4), (2, 0, 2), (8, 0, 1), (2, 3, 3), ("ray", 0, 1), ("ray", 1, 1)],
)
def test_runs_go_side_by_side_where_there_is_room(workers, jobs, at_once, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert runs_at_once(RunConfig(workers=workers), jobs) == at_once


def test_runs_on_a_cluster_do_not_go_side_by_side():
    with pytest.raises(InvalidInput, match="jobs is 2, but runs on a Ray cluster"):
        runs_at_once(RunConfig(workers="ray:first:6379"), 2)


def test_a_finished_comparison_runs_nothing_and_a_larger_one_only_what_is_new(
    whole, comparison, tmp_path
):
    folder, ran = run(tmp_path, replace(comparison, seeds=(0,)))
    assert len(ran) == 2
    _, ran = run(tmp_path, replace(comparison, seeds=(1,)))
    assert sorted(ran) == ["pace-joint-2-seed1", "random-maxn-2-seed1"]
    assert run(tmp_path, comparison)[1] == []
    assert folder.asked() == (comparison, 4)


def test_a_comparison_that_was_killed_goes_on_with_what_is_missing(whole, comparison, tmp_path):
    """A real kill -9 in the middle of a run; the workers end too, and let go of the pipe."""
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from wattfed.server.comparison.folder import ComparisonFolder\n"
        "from wattfed.server.comparison.grid import Comparison\n"
        "from wattfed.server.comparison.running import run_comparison\n"
        "if __name__ == '__main__':\n"
        "    asked = Comparison.from_record(json.loads(sys.argv[2]))\n"
        "    folder = ComparisonFolder(Path(sys.argv[1]))\n"
        "    run_comparison(folder, asked, 2, lambda *_: None, lambda *_: None)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), json.dumps(comparison.record())]
    process = warm.Popen(command, stderr=subprocess.PIPE)
    begun = "runs/*-seed1/rounds.csv"
    await_state(lambda: list(tmp_path.glob(begun)), lambda: process.poll() is None, 0.01)
    process.kill()
    _, errors = process.communicate()  # until the last process that holds the pipe has ended
    assert process.returncode == -signal.SIGKILL, errors
    folder = ComparisonFolder(tmp_path)
    finished = {result.config.run_name for result in folder.results(comparison)}
    assert 0 < len(finished) < 4
    _, ran = run(tmp_path, comparison)
    assert {*ran, *finished} == {config.run_name for config in comparison.runs()}
    assert not finished & {*ran}
    assert measures_of(folder, comparison) == measures_of(whole, comparison)


def test_a_folder_belongs_to_one_configuration_and_one_process(whole, comparison):
    other = replace(comparison, base=replace(comparison.base, rounds=4))
    with pytest.raises(InvalidInput, match="another comparison: rounds was 3, not 4"):
        run(whole.path, other)
    with (
        whole.begun(comparison, 4),
        pytest.raises(InvalidInput, match="another process runs this comparison"),
    ):
        run(whole.path, comparison)


def test_runs_of_other_code_are_not_mixed_with_new_ones(comparison, tmp_path):
    (tmp_path / "comparison.json").write_text(
        json.dumps({"code": "0123", "clients": 4, "asked": comparison.record()})
    )
    with pytest.raises(InvalidInput, match=r"begun by other code \(0123"):
        run(tmp_path, comparison)


def test_damaged_files_are_named(comparison, tmp_path):
    folder, _ = run(tmp_path, replace(comparison, strategies=("pace",), seeds=(0,)))
    asked, _ = folder.asked()
    reports = tmp_path / "runs" / "pace-joint-2-seed0" / "reports.jsonl"
    lines = reports.read_text().splitlines()
    lines[1] = lines[1][:30]
    reports.write_text("\n".join(lines) + "\n")
    with pytest.raises(InvalidInput, match="reports.jsonl, line 2: damaged"):
        list(folder.results(asked))
    folder.file.write_text("{")
    with pytest.raises(InvalidInput, match="comparison.json: not readable"):
        folder.asked()
    with pytest.raises(InvalidInput, match="no comparison here"):
        ComparisonFolder(tmp_path / "nowhere").asked()


def test_a_policy_under_which_nobody_can_train_is_a_result(comparison, tmp_path):
    fleet = tmp_path / "weak.toml"
    fleet.write_text('[[group]]\nboard = "orin-agx"\ncount = 2\npower_w = 3\n')
    weak = replace(comparison, base=replace(comparison.base, fleet=str(fleet)), seeds=(0,))
    folder, ran = run(tmp_path / "out", weak)
    assert len(ran) == 2
    at_maxn, pace = measures_of(folder, weak)
    assert at_maxn.power_violations and pace.energy_j == 0 and pace.rounds_to_target is None


def test_what_cannot_run_is_said_before_anything_runs(comparison):
    with pytest.raises(UnknownName, match="strategy 'best'"):
        checked_runs(replace(comparison, strategies=("pace", "best")))
