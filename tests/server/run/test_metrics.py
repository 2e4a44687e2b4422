"""A run is judged by whatever metric its evaluation gives: in files, lines, pages and decisions."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from powerctl.errors import InvalidInput, UnknownName
from tests.server.comparison.running import run
from tests.server.run.old_results import ROUNDS, SUMMARY, write_comparison
from wattfed.server.cli import main
from wattfed.server.comparison.content import Curve, target_charts
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import Comparison
from wattfed.server.comparison.measures import measures_of
from wattfed.server.comparison.report import build_report
from wattfed.server.engines.simulation import simulate
from wattfed.server.live.page import render_page
from wattfed.server.live.prometheus import render_metrics
from wattfed.server.live.run import LiveRun
from wattfed.server.live.terminal import snapshot_lines
from wattfed.server.run.checkpoints import Checkpoints
from wattfed.server.run.history import best_held, summary
from wattfed.server.run.judging import common_level, comparison
from wattfed.server.run.results import read_run
from wattfed.server.run.run_progress import RunProgress, plot_target, row_line
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import Target

NAN = math.nan
NEW = ("overhead_energy_j", "supply_energy_j", "others_energy_j", "went_back")  # since then
ODD = 'mAP@0.5, "all" <b>&$x$ [/red]'
"""A name that is special to CSV, HTML, matplotlib, rich and Prometheus."""


def rounds_of(folder):
    with open(folder / "rounds.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_all_metrics_are_kept_by_their_own_names_and_read_back(config, evaluates):
    told = [
        {"loss": 2.0 - n, ODD: n / 4, "round": 7.0, "metric:x": 1e-9, "Ä": NAN} for n in range(4)
    ]
    evaluates(*told)
    result = simulate(replace(config, target=ODD))
    assert result.target == Target(ODD, "max")
    assert [row.value for row in result.rows] == [0.0, 0.25, 0.5, 0.75]
    head = list(rounds_of(result.folder)[0])
    assert head[:6] == ["round", ODD, "loss", "metric:round", "metric:metric:x", "Ä"]
    again = read_run(result.folder)
    assert again.target == result.target
    for row, metrics in zip(again.rows, told, strict=True):
        assert {**row.metrics, "Ä": 0} == {**metrics, "Ä": 0} and math.isnan(row.metrics["Ä"])
    saved = json.loads((result.folder / "summary.json").read_text(), parse_constant=pytest.fail)
    assert saved["target"] == {"name": ODD, "direction": "max"}
    assert (saved["final"], saved["best"], saved["metrics"]["Ä"]) == (0.75, 0.75, None)
    assert "final_accuracy" not in saved


def test_results_judged_by_accuracy_are_as_they_were(config):
    result = simulate(config)
    assert not (result.folder / "target.json").exists()
    columns = (result.folder / "rounds.csv").read_text().partition("\n")[0].split(",")
    assert [c for c in columns if c not in NEW] == ROUNDS.partition("\n")[0].split(",")
    told = json.loads((result.folder / "summary.json").read_text())
    assert told.pop("charged_from") == "calibrated, real rounds"
    assert [key for key in told if key not in NEW] == list(SUMMARY)


@pytest.mark.parametrize(
    ("target", "rounds"),
    [("loss=1.5", 2), ("loss=1.5,1.9", 2), ("loss=0.8", 3), ("loss", 3), ("mAP=0.3", 3)],
)
def test_a_run_stops_at_its_goal_from_the_side_of_the_metric(config, evaluates, target, rounds):
    losses, maps = (2.0, 1.4, 0.8, 0.7), (0.1, 0.3, NAN, 0.2)
    evaluates(*({"loss": a, "mAP": b} for a, b in zip(losses, maps, strict=True)))
    assert simulate(replace(config, target=target)).rows[-1].round == rounds


def test_a_metric_that_is_not_evaluated_ends_the_run_at_once_with_those_that_are(config, evaluates):
    evaluates({"loss": 2.0, "mAP": 0.1})
    with pytest.raises(UnknownName, match="target metric 'f1': known: loss, mAP .*evaluation"):
        simulate(replace(config, target="f1=0.5"))
    assert not (Path(config.out_dir) / "run" / "rounds.csv").exists()


def test_a_name_that_is_no_line_of_text_is_refused(config, evaluates):
    evaluates({"accuracy": 0.1, "a\nb": 1.0})
    with pytest.raises(InvalidInput, match=r"metric 'a\\nb': a name must be printable"):
        simulate(config)


def test_rounds_without_an_evaluation_have_no_metrics(config, evaluates):
    evaluates({}, {"mAP": 0.2, "loss": 3.0}, {}, {"mAP": 0.1, "f1": 0.5})
    result = simulate(replace(config, target="mAP"))
    assert [row.value for row in result.rows] == [None, 0.2, None, 0.1]
    assert read_run(result.folder).rows == result.rows
    rows = rounds_of(result.folder)
    assert list(rows[0])[-3:] == ["mAP", "loss", "f1"]  # after those that there were before
    assert [row["mAP"] for row in rows] == [None, "0.2", "", "0.1"]
    saved = json.loads((result.folder / "summary.json").read_text())
    assert (saved["final"], saved["best"]) == (0.1, 0.2)


def test_a_run_that_was_never_evaluated_is_shown_and_reported_too(config, evaluates):
    evaluates()
    result = simulate(config)
    assert row_line(result.rows[-1]).startswith("round   3  not evaluated  ")
    now = LiveRun(result.folder).look()
    assert "accuracy -, best -;" in "\n".join(snapshot_lines(now))
    assert "<h2>Accuracy</h2>" in render_page(now)
    page = build_report(result.folder).read_text()
    assert "Nothing was evaluated." in page and "accuracy 0.9" not in page
    level = common_level([result, result])
    assert level is None
    assert "cannot be compared" in comparison(result, result, level)[0]


def test_it_goes_on_from_a_checkpoint_that_is_older_than_a_metric(config, evaluates):
    told = [{}, {}, {"mAP": 0.1}, {"mAP": 0.2, "f1": 0.5}, {}, {"f1": 0.6}]
    config = replace(config, rounds=5, checkpoint_every=3, target="mAP=0.9")
    evaluates(*told)
    whole = simulate(replace(config, name="whole"))
    evaluates(*told)

    def kill(row):
        if row.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(config, kill)
    assert Checkpoints(Path(config.out_dir) / "run" / "checkpoints", ()).last()["round"] == 0
    evaluates(*told[1:])
    again = simulate(replace(config, resume=True))
    assert again.rows == whole.rows and read_run(again.folder).rows == whole.rows
    for name in ("reports.jsonl", "summary.json"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_run_goes_on_with_another_goal_but_not_with_one_that_there_is_no_metric_for(
    config, evaluates
):
    evaluates(*({"loss": 2.0 - n, "mAP": n / 10} for n in range(5)))
    result = simulate(replace(config, target="mAP"))
    kept = (result.folder / "summary.json").read_bytes()
    longer = replace(config, rounds=4, resume=True)
    with pytest.raises(UnknownName, match="target metric 'f1'"):
        simulate(replace(longer, target="f1=0.5"))
    assert (result.folder / "summary.json").read_bytes() == kept
    again = simulate(replace(longer, target="loss"))
    assert [row.value for row in again.rows] == [2.0, 1.0, 0.0, -1.0, -2.0]
    assert read_run(again.folder).rows == again.rows


def test_who_looks_at_a_run_sees_what_it_is_judged_by_as_soon_as_it_is_known(config, evaluates):
    evaluates({}, {"loss": 0.4, "mAP": 0.5}, {"loss": NAN, "mAP": NAN})
    live, seen = LiveRun(Path(config.out_dir) / "run"), []

    def look(row):
        now = live.look()
        assert now.rows[-1].target == row.target == now.target
        seen.append("\n".join(snapshot_lines(now)))

    simulate(replace(config, rounds=2, target="loss=0.1"), look)
    assert "accuracy -, best -, target 0.1;" in seen[0]
    assert "loss 0.4000, best 0.4000, target 0.1;" in seen[1]
    assert "loss nan, best 0.4000, target 0.1;" in seen[2]
    assert [line.split()[:2] for line in seen[2].splitlines()[8:11]] == [
        ["0", "-"],
        ["1", "0.4"],
        ["2", "nan"],
    ]


def test_names_are_text_everywhere(config, evaluates, tmp_path):
    evaluates(*({ODD: n / 4} for n in range(4)))
    result = simulate(replace(config, target=f"{ODD}=0.9"))
    now = LiveRun(result.folder).look()
    for page in (render_page(now), build_report(result.folder).read_text()):
        assert "<b>&$x$" not in page and "&lt;b&gt;&amp;$x$" in page
    families = text_string_to_metric_families(render_metrics(now).decode())
    told = {family.name: family.samples for family in families}
    assert [(s.labels, s.value) for s in told["wattfed_metric_value"]] == [({"metric": ODD}, 0.75)]
    assert told["wattfed_target_info"][0].labels == {"metric": ODD, "direction": "max"}
    assert "wattfed_accuracy_ratio" not in told
    assert f"{ODD} 0.750, best 0.750, target 0.9;" in "\n".join(snapshot_lines(now))
    record = json.loads(json.dumps(now.record(), allow_nan=False))
    assert record["rounds"][-1][ODD] == 0.75
    plot_target({"x": result.rows}, "w", tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000
    with RunProgress(RunConfig(rounds=3), "title") as progress:
        progress.show(result.rows[-1])


def test_a_smaller_target_is_compared_from_its_own_side(config, evaluates):
    evaluates(*({"loss": loss} for loss in (2.0, 1.0, 0.5, 0.2)))
    ours = simulate(replace(config, target="loss"))
    evaluates(*({"loss": loss} for loss in (2.0, 1.5, 1.0, 0.5)))
    theirs = simulate(replace(config, target="loss", name="other"))
    assert best_held(ours.rows) == pytest.approx(1.7 / 3)
    assert common_level([ours, theirs]) == 1.0
    words = comparison(ours, theirs, 1.0)[0]
    assert words.startswith("To hold loss 1.000 (mean of three rounds; final: ")
    assert summary(ours.config, ours.rows, ours.ledger)["best"] == 0.2
    evaluates(*({"loss": loss} for loss in (2.0, 2.1, 2.2, 2.0)))
    worse = simulate(replace(config, target="loss", name="worse"))
    assert common_level([ours, worse]) is None
    assert comparison(ours, worse, None)[0].startswith("random at slack and ")


def test_a_comparison_by_loss_counts_up_to_its_levels_and_says_so(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.toml").write_text('[[group]]\nboard = "orin-agx"\ncount = 2\n')
    asked = ["--fleet", "two.toml", "--rounds", 4, "--local-epochs", 1, "--per-round", 2]
    asked += ["--strategies", "random,pace", "--power", "maxn", "--seeds", 1, "--jobs", 1]
    done = call(main, "compare", *asked, "--target", "loss=1.2,2.4,2", "--out", "c")
    assert done.returncode == 0, done.stderr
    tables = [line for line in done.stdout.splitlines() if line.startswith("until")]
    assert [line.split(",")[0] for line in tables] == [
        f"until loss {x}" for x in ("2.4", "2", "1.2")
    ]
    assert "  loss  fairness" in done.stdout and "seed 0: loss " in done.stderr
    folder = ComparisonFolder(tmp_path / "c")
    whole, _ = folder.asked()
    for result in folder.results(whole):
        *before, last = [row.value for row in result.rows]
        held = sum([*before, last][-3:]) / 3
        assert held <= 1.2 < sum(before[-3:]) / 3 or (len(before) == 4 and held > 1.2)
    measures = measures_of(folder, whole)
    assert [m.level for m in measures[:3]] == [2.4, 2.0, 1.2]
    assert measures[0].rounds_to_target == 2 and measures[0].energy_to_target_j > 0.0
    with open(tmp_path / "c" / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["final_loss"]) for row in rows] == [m.final for m in measures]
    assert all(float(row["best_loss"]) <= float(row["final_loss"]) for row in rows)
    page = (tmp_path / "c" / "report.html").read_text()
    assert "<h2>Until loss 1.2</h2>" in page and "<h2>Loss</h2>" in page
    assert "ccuracy" not in page and "--target loss=1.2,2.4,2.0" in page
    shutil.rmtree(tmp_path / "c" / "runs" / "pace-joint-2-seed0")
    again = call(main, "compare", *asked, "--target", "loss=1.2,2.4,2", "--out", "c", "--json")
    assert again.returncode == 0 and "2 runs, 1 of them finished earlier" in again.stderr
    assert {row["target_loss"] for row in json.loads(again.stdout)} == {2.4, 2.0, 1.2}


def test_a_comparison_of_all_rounds_is_judged_by_its_metric_too(config, evaluates, tmp_path):
    base = replace(config, name="", out_dir="runs")
    asked = Comparison(base, ("random",), ("maxn",), (2,), (0,), (1.5,), True, "loss")
    evaluates(*({"loss": loss, "accuracy": 0.5} for loss in (2.0, 1.5, 1.0, 1.8)))
    folder, _ = run(tmp_path / "c", asked)
    (measured,) = measures_of(folder, asked)
    assert (measured.rounds, measured.rounds_to_target) == (3, 2)
    assert (measured.final, measured.best, measured.target) == (1.8, 1.0, Target("loss", "min"))


def test_curves_of_any_metric_stay_inside_their_charts():
    for values in ([2.3, 1.2, 0.4], [-5.0, -2.0], [1e6, 1e5], [93.0, 95.5], [0.5]):
        n = np.arange(len(values), dtype=float)
        curve = Curve(n, n, n, np.array(values))
        for target in (Target("loss", "min"), Target("mAP", "max"), Target()):
            for chart in target_charts({"x": [curve]}, target, [values[-1]]):
                heights = [float(y) for y in re.findall(r"[\d.]+ ([\d.]+)", chart.series[0].line)]
                assert all(chart.top <= y <= chart.bottom for y in heights)
                assert chart.top <= chart.marks[0].at <= chart.bottom
                assert chart.y_ticks and all(len(tick.label) <= 6 for tick in chart.y_ticks)
                assert (heights[-1] > heights[0]) == (values[-1] < values[0])  # down the page


def test_results_of_before_there_were_targets_still_read(tmp_path):
    folder = write_comparison(tmp_path / "old")
    result = read_run(folder)
    assert result.target == Target() and result.config.goal.levels == (0.2,)
    assert [row.value for row in result.rows] == [0.13055555555555556, 0.2722222222222222]
    assert result.rows[1].metrics["loss"] == 3.424638197157118
    assert summary(result.config, result.rows, result.ledger) == SUMMARY | dict.fromkeys(NEW, 0.0)
    assert LiveRun(folder).look().rows == result.rows
    whole, _ = ComparisonFolder(tmp_path / "old").asked()
    assert whole.targets == (0.2,) and whole.commands("c")[0].count("--target-accuracy 0.2") == 1
    page = build_report(tmp_path / "old").read_text()
    assert "no run reached accuracy 0.2" in page.lower() and ">0.272</td>" in page
    (row,) = map(json.loads, (tmp_path / "old" / "runs.jsonl").read_text().splitlines())
    assert (row["target_accuracy"], row["final_accuracy"]) == (0.2, 0.2722222222222222)
    assert "A federated run: pace" in build_report(folder).read_text()


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "mAP", "direction": "up"}', '{"x": 1}'])
def test_a_damaged_target_is_named(tmp_path, content):
    folder = write_comparison(tmp_path / "old")
    (folder / "target.json").write_text(content)
    with pytest.raises(InvalidInput, match=r"target\.json: not readable"):
        read_run(folder)
