"""The report: whole, in one file, the same when it is built again."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from powerctl.errors import InvalidInput, UnknownName
from powerctl.statistics import Estimate
from tests.server.comparison.running import run
from tests.strategies.offers_of import recorded, report
from wattfed.server.comparison.charts import line_chart, mean_of_curves, ticks
from wattfed.server.comparison.content import run_view
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.measures import measures_of
from wattfed.server.comparison.report import build_report
from wattfed.server.comparison.table import Table
from wattfed.server.comparison.verdict import Verdict, verdict
from wattfed.server.run.contender import PolicyPair
from wattfed.server.run.history import FederationResult, RoundRow
from wattfed.server.run.results import read_run
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.round.ledger import Ledger


class Page(HTMLParser):
    """Tables by their heads, texts, addresses, and whether every tag closes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.addresses, self.cell = [], [], [], None
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        """SVG's shapes close themselves."""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & {*self.open}:
            self.tables[-1][-1][-1] += data.strip()


@pytest.fixture
def built(whole, tmp_path):
    """A copy of the comparison, with its report."""
    shutil.copytree(whole.path, tmp_path / "compared")
    return build_report(tmp_path / "compared")


def test_every_run_is_on_the_page_and_in_the_tables_beside_it(built, whole, comparison):
    measures = measures_of(whole, comparison)
    runs = Page(built.read_text()).tables[-1][1:]
    assert [(row[0], row[2]) for row in runs] == [
        ("random at maxn", "0"),
        ("pace", "0"),
        ("random at maxn", "1"),
        ("pace", "1"),
    ]
    with open(built.parent / "runs.csv") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (built.parent / "runs.jsonl").read_text().splitlines()]
    assert len(table) == len(lines) == len(measures)
    for row, line, run_measures in zip(table, lines, measures, strict=True):
        assert float(row["energy_j"]) == line["energy_j"] == run_measures.energy_j


def test_the_page_asks_the_network_for_nothing_and_leads_to_the_files_of_its_charts(built):
    text = built.read_text()
    addresses = Page(text).addresses
    assert addresses and all((built.parent / address).is_file() for address in addresses)
    assert {f"charts/{path.name}" for path in (built.parent / "charts").iterdir()} == {*addresses}
    assert not re.search(r"https?:|url\(|@import|<link|fetch\(|XMLHttp", text)


def test_the_first_thing_on_the_page_is_what_the_comparison_comes_to(built, whole, comparison):
    measures = measures_of(whole, comparison)
    told = verdict(measures, Table(measures, 0.3, PolicyPair("random", "maxn")))
    body = built.read_text().partition("<main>")[2].lstrip()
    assert body.startswith(f"<h1>{told.headline}</h1>")
    for words, figure in told.figures:
        assert words in body and f"{figure.n} seeds" in body


@pytest.mark.parametrize(
    ("less", "headline", "figure"),
    [
        (Estimate(2.0, 1.5, 2.7, 3), "a used 2.00 times less energy than b", 2.0),
        (Estimate(0.5, 0.4, 0.7, 3), "a used 2.00 times more energy than b", 2.0),
        (Estimate(1.2, 0.8, 1.6, 3), "No sure difference in energy between a and b", 1.2),
        (Estimate(2.0, math.nan, math.nan, 1), "a used 2.00 times less energy than b in one", 2.0),
    ],
)
def test_the_headline_promises_no_more_than_the_interval(less, headline, figure):
    told = Verdict("Until then.", "a", "b", less, less)
    assert told.headline.startswith(headline)
    ((_, shown), _) = told.figures
    assert shown.mean == figure and (less.n == 1 or shown.low < shown.mean < shown.high)
    assert Verdict("Nothing to compare: no run has learned.").headline == "Nothing to compare"


def test_every_chart_is_a_drawing_and_a_table_of_its_own(built, whole, comparison):
    charts = built.parent / "charts"
    for path in charts.glob("*.svg"):
        drawn = ElementTree.parse(path)  # a well-formed one
        assert drawn.getroot().get("viewBox") and "var(" not in path.read_text()
        assert path.with_suffix(".csv").is_file()

    def table(name):
        with open(charts / name) as file:
            return list(csv.DictReader(file))

    runs = list(whole.results(comparison))
    pace = [run for run in runs if run.config.strategy == "pace"]
    mean = sum(run.ledger.energy_j for run in pace) / len(pace)
    (row,) = [row for row in table("energy.csv") if row["policy"] == "pace"]
    assert float(row["energy_j"]) == pytest.approx(mean)
    kinds = ("training_j", "transfer_j", "waiting_j", "beside_j")
    assert sum(float(row[kind]) for kind in kinds) == pytest.approx(mean)
    times = [float(row["times"]) for row in table("clients.csv") if row["policy"] == "pace"]
    assert sum(times) == pytest.approx(sum(sum(r.participations.values()) for r in pace) / 2)
    lines = [row for row in table("over-energy.csv") if row["line"] == "pace"]
    assert float(lines[-1]["mean"]) == pytest.approx(
        sum(run.rows[-1].value for run in pace) / len(pace)
    )
    turns = table("round-pace.csv")
    assert turns and all(turn["board"] in ("orin-agx", "orin-nano") for turn in turns)


def test_the_page_says_what_was_charged_and_how_to_repeat_it(built, comparison):
    text = built.read_text()
    assert "charged as mobilenetv3-train" in text
    assert "not measurements of a Jetson" in text
    assert comparison.commands(str(built.parent))[0] in text
    assert "nan" not in re.sub(r"<script.*?</script>", "", text, flags=re.S).lower().split()


def test_a_rebuilt_report_is_the_same(built):

    def files():
        paths = [*built.parent.glob("r*.*"), *built.parent.glob("charts/*")]
        return {path: path.read_bytes() for path in paths}

    before = files()
    assert {"report.html", "runs.csv", "runs.jsonl"} <= {path.name for path in before}
    for path in before:
        path.unlink()
    build_report(built.parent)
    assert files() == before


def test_ratios_are_to_the_baseline_that_is_asked_for(built):
    def ratios(page):
        return {row[0]: row[1] for row in Page(page.read_text()).tables[0][1:]}

    assert ratios(built)["random at maxn"] == "baseline"
    assert ratios(build_report(built.parent, "pace"))["pace"] == "baseline"
    with pytest.raises(UnknownName, match="baseline 'oort:maxn'.*known: pace:joint, random:maxn"):
        build_report(built.parent, "oort:maxn")


def test_a_part_of_a_comparison_is_reported_as_a_part(built):
    shutil.rmtree(built.parent / "runs" / "pace-joint-2-seed1")
    text = build_report(built.parent).read_text()
    assert "3 of 4" in text and "1 of 4 runs have not finished" in text


def test_several_numbers_of_clients_show_everyones_best(comparison, tmp_path):
    folder, _ = run(tmp_path, replace(comparison, per_round=(1, 2), seeds=(0,)))
    page = Page(build_report(folder.path).read_text())
    best, equal = page.tables[:2]
    assert [row[0] for row in best[1:]] == ["random at maxn", "pace"]
    assert len(equal) == 1 + 4


def test_a_single_run_and_its_baselines_have_a_report_too(whole, tmp_path):
    run_folder = tmp_path / "ours"
    shutil.copytree(whole.path / "runs" / "pace-joint-2-seed0", run_folder)
    text = build_report(run_folder).read_text()
    assert "A federated run: pace" in text and Page(text)
    last = read_run(run_folder).rows[-1]
    assert f"<h1>Accuracy {last.value:.3f} for " in text
    other = run_folder / "against-random-maxn"
    shutil.copytree(whole.path / "runs" / "random-maxn-2-seed0", other)
    assert len(Page(build_report(run_folder).read_text()).tables[-1]) == 1 + 2


def test_a_round_shows_who_waited_and_whose_update_was_lost(comparison, tmp_path):
    ledger = Ledger()
    lost = report(2, time_s=6.0, lost="crashed")
    entry = recorded(
        ledger,
        1,
        [RoundAssignment(i, 10) for i in range(3)],
        [report(0), report(1, time_s=15.0), lost],
    )
    rows = (
        RoundRow(0, {"accuracy": 0.1}, 0.0, 0.0),
        RoundRow(1, {"accuracy": 0.5}, 15.5, entry.energy_j, entry),
    )
    result = FederationResult(comparison.base, rows, ledger, tmp_path)
    fast, slow, crashed = run_view(result, 3, (0.9,)).typical.turns
    assert fast.waiting_s == pytest.approx(5.0) and slow.waiting_s == 0.0
    assert fast.used and slow.used
    assert not crashed.used and crashed.waiting_s == 0.0


def test_folders_without_runs_are_named(comparison, tmp_path):
    with pytest.raises(InvalidInput, match="neither a comparison nor a run"):
        build_report(tmp_path)
    with ComparisonFolder(tmp_path).begun(comparison, 4):
        pass
    with pytest.raises(InvalidInput, match="no run has finished yet"):
        build_report(tmp_path)


def test_the_mean_of_curves_holds_the_last_value_of_runs_that_stopped():
    short = (np.array([0.0, 1.0]), np.array([0.0, 0.8]))
    long = (np.array([0.0, 2.0]), np.array([0.0, 1.0]))
    series = mean_of_curves("x", [short, long])
    assert series.x[-1] == 2.0 and series.mean[-1] == pytest.approx(0.9)
    assert (series.low[-1], series.high[-1]) == (0.8, 1.0)
    assert (series.low <= series.mean).all() and (series.mean <= series.high).all()


def test_charts_stay_inside_their_frame():
    runs = [(np.array([0.0, 7.0, 23.0]), np.array([0.1, 0.5, 0.97]))]
    chart = line_chart("over time", "s", [mean_of_curves("x", runs)], (0.1, 1.0), (0.9,))
    points = re.findall(r"([\d.]+) ([\d.]+)", chart.series[0].line)
    assert all(chart.left <= float(x) <= chart.right for x, _ in points)
    assert all(chart.top <= float(y) <= chart.bottom for _, y in points)
    assert [tick.label for tick in chart.x_ticks] == ["0", "5", "10", "15", "20"]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 793, [0, 200, 400, 600]), (0.3, 0.31, [0.3, 0.302])],
)
def test_ticks_are_round_numbers(low, high, wanted):
    assert ticks(low, high)[: len(wanted)] == pytest.approx(wanted)
