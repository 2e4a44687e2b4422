"""A whole comparison in one call, and its options as a command and as Python has them."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import wattfed
from powerctl.errors import InvalidInput, UnknownName
from wattfed.server.cli import cli
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import Comparison
from wattfed.server.comparison.running import compare


@pytest.fixture(scope="module")
def options(small_fleet):
    return {"fleet": small_fleet, "rounds": 1, "local_epochs": 1, "per_round": 2, "seeds": 1}


@pytest.fixture(scope="module")
def result(options, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    return wattfed.compare(strategies=["random", "pace"], power="maxn", out=out, **options)


def test_it_measures_every_run_and_writes_the_report(result):
    assert [(run.strategy, run.seed) for run in result.measures] == [("random", 0), ("pace", 0)]
    assert result.report.is_file() and result.report.parent.joinpath("runs.csv").is_file()
    assert repr(result) == f"<2 runs of 2 policies, report: {result.report}>"


def test_what_a_folder_holds_is_not_run_again(result, options):
    ran = []
    again = wattfed.compare(
        strategies="pace", power="maxn", out=result.report.parent, on_run=ran.append, **options
    )
    assert not ran and again.measures == result.measures


def test_a_table_has_a_row_for_each_run(result):
    pytest.importorskip("pandas")
    table = result.to_pandas()
    assert list(table["strategy"]) == ["random", "pace"]
    assert list(table["energy_j"]) == [run.energy_j for run in result.measures]


def test_sequences_are_as_texts_with_commas():
    texts = Comparison.of(strategies="pace,oort(clip=0.9)", per_round="5,3", target_accuracy="0.9")
    lists = Comparison.of(strategies=["pace", "oort(clip=0.9)"], per_round=[3, 5])
    assert texts == lists and lists == Comparison.of(
        strategies=("pace", "oort(clip=0.9)"), power=("maxn", "slack"), per_round=(5, 3)
    )


def test_the_command_runs_what_the_same_options_say_in_python(options, tmp_path):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    words = ["compare", "--strategies=random", "--jobs=1", f"--out={tmp_path}", *flags]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    asked, _ = ComparisonFolder(tmp_path).asked()
    assert asked == Comparison.of(strategies=["random"], **options)


def test_options_that_there_are_not_or_that_are_given_twice_are_refused(comparison):
    with pytest.raises(UnknownName, match="comparison 'strategy': did you mean 'strategies'"):
        compare(strategy="pace")
    with pytest.raises(InvalidInput, match="not both; got rounds"):
        compare(comparison, rounds=3)
    with pytest.raises(InvalidInput, match="per-round: cannot read"):
        compare(per_round="many")
