from __future__ import annotations

import pytest

from powerctl.characterization.plan import Plan
from powerctl.characterization.running import expected, identity_of, run_study
from powerctl.characterization.study_log import StudyLog
from powerctl.characterization.virtual_bench import TwinBench
from powerctl.errors import InvalidInput, InvalidTable


@pytest.fixture
def bench():
    return TwinBench("twin:orin-agx", "resnet18-train")


@pytest.fixture
def run(bench, tmp_path):
    """Run a plan into the log, for as long as a budget allows."""

    def go(budget_s=float("inf"), **changes):
        plan = Plan(bench.baseline, {"workers": (0, 2, 4)}, **{"repetitions": 2, **changes})
        log = StudyLog.open(tmp_path / "study.jsonl", identity_of(bench, plan))
        try:
            last = run_study(bench, plan, log, expected(bench, plan), budget_s=budget_s)
        finally:
            log.close()
        return log, last

    return go


def epochs(log):
    return [result.to_json()["epochs"] for result in log.entries]


def test_a_study_is_gone_on_with_where_it_ended(run):
    part, last = run(budget_s=2000)
    assert 0 < len(part.entries) < 6
    assert last.left_out == 6 - len(part.entries)
    whole, last = run()
    assert (len(whole.entries), last.left_out) == (6, 0)
    assert epochs(whole)[: len(part.entries)] == epochs(part)


def test_a_study_is_extended_by_repetitions(run):
    assert len(run()[0].entries) == 6
    assert len(run(repetitions=3)[0].entries) == 9


def test_a_line_that_was_cut_is_run_again(run):
    log, _ = run()
    content = log.path.read_bytes()
    log.path.write_bytes(content[:-40])
    assert len(StudyLog.read(log.path).entries) == 5
    assert epochs(run()[0]) == epochs(log)


def test_the_seed_makes_the_study(run, tmp_path):
    first = epochs(run()[0])
    (tmp_path / "study.jsonl").unlink()
    assert epochs(run()[0]) == first


def test_another_study_is_not_mixed_into_it(run):
    run()
    with pytest.raises(InvalidInput, match="of epochs 3, not 4; .* another folder with --out"):
        run(epochs=4)


def test_what_another_study_is_of_is_quoted_cut_off(run, tmp_path):
    run()
    path = tmp_path / "study.jsonl"
    path.write_text(path.read_text().replace('"Jetson', '"Jets' + "[" * 20_000, 1))
    with pytest.raises(InvalidInput, match="the study is of machine") as told:
        run()
    assert len(str(told.value)) < 1000


def test_a_damaged_line_is_named(run):
    log, _ = run()
    lines = log.path.read_text().splitlines()
    lines[2] = lines[2].replace('"stall_s": ', '"stall_s": -')
    log.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InvalidTable, match="line 3: damaged: stall_s is -"):
        StudyLog.read(log.path)


def test_a_file_that_is_no_log_is_refused(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("milk\n")
    with pytest.raises(InvalidInput, match="not a log of powerctl characterize"):
        StudyLog.read(file)
    with pytest.raises(InvalidInput, match="no such file"):
        StudyLog.read(tmp_path / "none")
