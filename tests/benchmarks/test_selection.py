from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import select, selection_grid, selection_speed
from benchmarks.cells import cells_of
from benchmarks.selection_table import Compared, read_csv, verdict, write_csv
from wattfed.server.comparison.grid import Comparison

GRID = """
[tuning]
cells = ["few"]
first-seed = 7
seeds = 1
[policies]
random = { per-round = [2, 4], powers = ["maxn"] }
pace = { per-round = [4] }
tifl = { per-round = [2], powers = ["slack"], cells = ["few"] }
[cells.few]
fleet = "fleet.toml"
target = "accuracy=0.3"
local-epochs = 2
[cells.alike]
fleet = "fleet.toml"
target = "accuracy=0.4"
skew = "iid"
local-epochs = 2
"""


def called(command, *arguments):
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.toml").write_text('[[group]]\nboard = "orin-agx"\ncount = 6\n')


def row(policy, seed, energy_j, *, cell="c", censored=False, whole_j=100.0):
    until = None if censored else energy_j
    return {
        "cell": cell,
        "strategy": policy,
        "power": "maxn",
        "per_round": 5,
        "seed": seed,
        "censored": censored,
        "time_to_target_s": until,
        "virtual_time_s": whole_j,
        "energy_to_target_j": until,
        "energy_j": whole_j,
    }


FIELD = [("energy_to_target_j", "energy_j")]


def test_factors_are_paired_and_a_run_that_misses_counts_with_all_that_it_spent():
    rows = [row("random", s, 40.0 * 3**s) for s in range(4)]
    rows += [row("pace", s, 20.0 * 3**s) for s in range(4)]
    factor = Compared(rows).factor("pace", "random", FIELD)
    assert factor == pytest.approx((2.0, 2.0, 2.0))  # seeds differ, their ratios do not
    rows[-1] = row("pace", 3, 0.0, censored=True, whole_j=2 * 40.0 * 27)
    spread = Compared(rows).factor("pace", "random", FIELD)
    assert spread.mean == pytest.approx((2 * 2 * 2 * 0.5) ** 0.25) and spread.low < spread.mean < 2
    other = [row("random", 0, 30.0, cell="d"), row("pace", 0, 90.0, cell="d")]
    both = Compared(rows + other).factor("pace", "random", FIELD)  # each cell counts the same
    assert both.mean == pytest.approx((spread.mean / 3) ** 0.5)


@pytest.mark.parametrize(("whole_j", "best"), [(80.0, "oort"), (4000.0, "random")])
def test_the_best_other_is_of_the_least_cost_though_a_run_of_it_missed(whole_j, best):
    rows = [row("random", s, 40.0) for s in range(3)] + [row("pace", s, 20.0) for s in range(3)]
    rows += [row("oort", s, 10.0) for s in (0, 1)]
    rows += [row("oort", 2, 0.0, censored=True, whole_j=whole_j)]
    assert verdict(Compared(rows)).startswith(f"Beside the best other, {best} with")


def test_rows_come_back_from_their_file(tmp_path):
    rows = [{**row("pace", 1, 1 / 3), "rungs": [{"metric": 0.5, "time_to_target_s": None}]}]
    write_csv(tmp_path / "rows.csv", rows)
    (again,) = read_csv(tmp_path / "rows.csv")
    assert again == {**rows[0], "energy_to_target_j": 0.333333, "time_to_target_s": 0.333333}


def test_a_cell_for_each_task_skew_and_fleet():
    asked = Comparison.of(
        strategies="random", task="digits,fashion-mnist(samples=9,tests=9)", skew="iid,shards:2",
        fleet="city", target="accuracy=0.9",
    )  # fmt: skip
    cells = cells_of(asked, is_ideal=True)
    assert len(cells) == 4 and {c.base.fleet for c in cells.values()} == {"city(ideal=true)"}
    assert cells["digits-iid-city-ideal=true"] == replace(
        asked, base=replace(asked.base, task="digits", skew="iid", fleet="city(ideal=true)")
    )


@pytest.mark.studies
def test_all_have_the_same_joules_and_go_on_past_their_target(fleet):
    asked = ["--strategies", "random,pace", "--power", "maxn", "--per-round", 3, "--seeds", 1]
    asked += ["--local-epochs", 1, "--target", "accuracy=0.2,0.4", "--first-seed", 3, "--jobs", 1]
    asked += ["--fleet", "fleet.toml", "--accounting", "always-on", "--no-labels"]
    said = called(select.main, *asked, "--budget-j", "auto", "--json", "s.json", "--out", "o")
    assert "digits-dirichlet-0.3-fleet.toml" in said
    rows = json.loads(Path("s.json").read_text())
    assert [(r["strategy"], r["power"], r["seed"]) for r in rows] == [
        ("random", "maxn", 3), ("pace", "joint", 3),
    ]  # fmt: skip
    for one in rows:
        assert one["budget_j"] == rows[0]["budget_j"] <= one["energy_always_on_j"]
        assert one["energy_training_j"] < one["energy_j"] < one["energy_always_on_j"]
        assert one["target"] == 0.4 and [rung["metric"] for rung in one["rungs"]] == [0.2]
        assert 0 <= one["worst_decile"] <= one["final_metric"] <= 1
    first = rows[0]
    assert len(list(Path("o").glob("*/reference/runs/*"))) == 5
    assert first["rungs"][0]["energy_to_target_j"] <= first["energy_to_target_j"]
    ideal = [*asked, "--ideal", "--rounds", 2, "--json", "i.json"]
    called(select.main, *ideal)
    for one in json.loads(Path("i.json").read_text()):
        assert one["time_fixed_s"] == pytest.approx(one["virtual_time_s"] + 2 * 2.6)


@pytest.mark.studies
def test_settings_are_chosen_on_other_seeds_and_the_rest_is_run_with_them(fleet, tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    asked = ["--file", "grid.toml", "--out", "g", "--seeds", 1, "--jobs", 1]
    said = called(selection_grid.main, *asked, "--csv", "g.csv")
    rows = read_csv(tmp_path / "g.csv")
    assert {row["seed"] for row in rows} == {0}
    cells = {row["cell"]: [] for row in rows}
    for one in rows:
        cells[one["cell"]].append(one["strategy"])
    assert cells == {"few": ["random", "pace", "tifl"], "alike": ["random", "pace"]}
    assert len({one["per_round"] for one in rows if one["strategy"] == "random"}) == 1
    assert "Beside the best other, random" in said
    assert called(selection_grid.main, "--read", "g.csv") == said


def test_how_long_a_choice_takes_is_told_for_every_policy():
    printed = called(selection_speed.main, "--clients", 50, "--per-round", 5, "--rounds", 2)
    told = {line.split(maxsplit=1)[0] for line in printed.splitlines() if line}
    assert {"random", "pace", "oort", "energy-budget"} <= told
