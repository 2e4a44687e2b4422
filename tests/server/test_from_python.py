"""`wattfed.simulate` as a person calls it: options, silence, tables, and what it leaves alone."""

from __future__ import annotations

import csv
import logging
import subprocess
import sys

import pytest
import torch

import wattfed
from powerctl.errors import InvalidInput, UnknownName
from wattfed.server.run.results import read_run

pytestmark = pytest.mark.studies

OPTIONS = {"rounds": 2, "per_round": 3, "strategy": "random", "local_epochs": 1}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def result(out):
    return wattfed.simulate(out_dir=out, **OPTIONS)


def test_options_are_the_fields_of_a_configuration(result, out):
    whole = wattfed.RunConfig(out_dir=str(out), name="whole", **OPTIONS)
    assert wattfed.simulate(whole).rows == result.rows
    assert wattfed.simulate(whole, rounds=1, name="less").rows == result.rows[:2]
    assert read_run(result.folder).rows == result.rows  # the folder that the command writes


def test_it_prints_nothing_and_leaves_logger_threads_and_seed_as_they_were(out, capfd, caplog):
    log, threads = logging.getLogger("flwr"), torch.get_num_threads() + 1
    level = log.level
    torch.set_num_threads(threads)
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    try:
        wattfed.simulate(out_dir=out, name="quiet", **{**OPTIONS, "rounds": 1})
        assert log.level == level and torch.get_num_threads() == threads
        assert torch.equal(torch.rand(3), drawn)
        with pytest.raises(ZeroDivisionError):
            wattfed.simulate(None, lambda row: 1 // 0, out_dir=out, name="broken", **OPTIONS)
        assert log.level == level and torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(threads - 1)
    printed = capfd.readouterr()
    assert not printed.out and not printed.err and not caplog.records


def test_a_misspelt_option_and_a_wrong_kind_are_named():
    with pytest.raises(UnknownName, match="option of a run 'per_rond': did you mean 'per_round'"):
        wattfed.simulate(per_rond=3)
    with pytest.raises(InvalidInput, match="rounds must be int, got 'many'"):
        wattfed.simulate(rounds="many")


def test_a_result_says_in_a_line_what_it_is(result):
    assert repr(result).startswith(
        "<digits-random-slack-seed0-per-round=3-local-epochs=1: 2 rounds, accuracy 0."
    )
    assert str(result.folder) in repr(result) and len(repr(result).splitlines()) == 1


def test_its_tables_are_the_files_of_its_folder(result):
    pytest.importorskip("pandas")
    rounds, reports = result.to_pandas(), result.to_pandas("reports")
    with open(result.folder / "rounds.csv") as file:
        written = list(csv.DictReader(file))
    assert list(rounds.columns) == list(written[0])
    assert [f"{a}" for a in rounds["accuracy"]] == [row["accuracy"] for row in written]
    assert list(rounds["clients"][1:]) == [row["clients"] for row in written[1:]]
    assert len(reports) == len(result.ledger.reports)
    assert set(reports["round"]) == {1, 2} and {"client", "energy_j"} <= set(reports.columns)
    with pytest.raises(UnknownName, match="table of a run 'clients'.*known: reports, rounds"):
        result.to_pandas("clients")


def test_a_table_without_pandas_says_what_to_install(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InvalidInput, match=r"needs pandas: pip install 'wattfed\[pandas\]'"):
        result.to_pandas()


def test_a_script_that_its_workers_would_run_again_is_told_to_guard_itself(tmp_path):
    """Each worker would simulate it all once more, into the same folder."""
    script = tmp_path / "unguarded.py"
    script.write_text("import wattfed\nwattfed.simulate(rounds=1, local_epochs=1, workers=2)\n")
    done = subprocess.run(
        [sys.executable, script.name], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode != 0
    assert 'put what it does under `if __name__ == "__main__":`' in done.stderr
