"""What a run is said to have come to, through the commands that say it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.server.run.old_results import write_comparison
from tests.strategies.offers_of import recorded
from wattfed.server.cli import main
from wattfed.server.engines.simulation import plan_of, simulate
from wattfed.server.live.run import LiveRun
from wattfed.server.run.history import RoundRow, best_held, held_by_all
from wattfed.server.run.judging import judge, judge_result
from wattfed.server.run.participants import Participants
from wattfed.server.run.results import read_run
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.round.ledger import Ledger
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.studies

THREE = """\
[[group]]
board = "orin-agx"
count = 3
power_w = [4, 30, 30]
energy_budget_j = [2000, 400, 2000]
"""


@pytest.mark.parametrize("chance", [None, 0.5])
def test_a_run_that_is_perfect_when_clients_first_evaluate_it_has_learned(chance):
    rows = [replace(row, metrics={} if row.round == 0 else row.metrics) for row in rows_of(0, 1, 1)]
    judged = judge(RunConfig(), rows, {0: 1, 1: 1}, Participants(clients=2, chance=chance))
    assert "Nothing was learned" not in judged.outcome


@pytest.fixture
def there(tmp_path, monkeypatch):
    """The working directory, with a fleet of which a board cannot keep its limit, and another."""
    monkeypatch.chdir(tmp_path)
    Path("three.toml").write_text(THREE)
    Path("weak.toml").write_text('[[group]]\nboard = "orin-agx"\ncount = 2\npower_w = 4\n')
    Path("two.toml").write_text('[[group]]\nboard = "orin-agx"\ncount = 2\n')
    return tmp_path


def rows_of(*values):
    """A history with these values of accuracy, in which two of ten clients train."""
    ledger, rows = Ledger(), []
    for number, value in enumerate(values):
        entry = recorded(ledger, number, [RoundAssignment(0, 1)], []) if number else None
        rows.append(RoundRow(number, {"accuracy": value}, 10.0 * number, 100.0 * number, entry))
    return rows


def said(*values, chance=0.1, **config):
    rows, participants = rows_of(*values), Participants(clients=2, chance=chance)
    return judge(RunConfig(**config), rows, {0: 1, 1: 1}, participants)


def test_a_target_touched_in_one_round_is_not_held():
    touched = said(0.1, 0.3, 0.95, 0.5, 0.6, target_accuracy=0.9)
    assert touched.outcome.startswith("Reached accuracy 0.9 in round 2 but does not hold it")
    held = said(0.1, 0.3, 0.95, 0.9, 0.92, target_accuracy=0.9)
    assert held.outcome.startswith("Reached accuracy 0.9 in round 2 and holds it")
    never = said(0.1, 0.3, 0.5, 0.6, target_accuracy=0.9)
    assert never.outcome.startswith("Did not reach accuracy 0.9: final accuracy 0.600")


def test_what_guessing_gives_is_not_called_learned():
    lucky = said(0.333, 0.36, 0.333, 0.5, 0.333, 0.333, chance=1 / 3)
    assert lucky.outcome.startswith("Nothing was learned: final accuracy 0.333")
    assert "guessing gives 0.333" in lucky.outcome and lucky.advice
    better = said(0.333, 0.36, 0.5, 0.6, 0.6, 0.6, chance=1 / 3)
    assert "learned" not in better.outcome


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], "still improving"),
        ([0.1, 0.5, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8], "plateau"),
        ([0.1, 0.5, 0.8, 0.8, 0.8, 0.8, 0.6, 0.5, 0.4, 0.3, 0.3], "got worse after round 4"),
        ([0.1, 0.5, 0.8], ""),
    ],
)
def test_the_course_of_a_run_is_told_from_what_it_holds(values, words):
    course = said(*values).course
    assert words in course and bool(words) == bool(course)


def test_a_run_that_was_getting_better_when_its_budget_was_spent_is_to_have_a_larger_one():
    told = said(*(k / 10 for k in range(1, 10)), budget_j=1e-3, target_accuracy=0.95)
    assert told.outcome.endswith("The budget of 1 mJ is spent.")
    assert "a larger budget (--budget-j 0.002 --resume continues the run)" in told.advice


def test_runs_are_compared_at_what_all_hold_and_not_at_what_one_has_touched():
    high, low = rows_of(0.1, 0.9, 0.9, 0.9), rows_of(0.1, 0.3, 0.9, 0.3)
    assert best_held(low) == pytest.approx(0.5) and best_held(rows_of(0.1, 0.9)) is None
    assert held_by_all([high, low], 0.9) == pytest.approx(0.5)
    assert held_by_all([high, high], 0.8) == 0.8
    assert held_by_all([high, rows_of(0.1, 0.9)]) is None


def test_the_plan_is_checked_before_the_first_round_and_the_end_says_who_never_trained_and_why(
    call, there
):
    asked = ("--fleet", "three.toml", "--per-round", 10, "--rounds", 6, "--name", "x")
    done = call(main, "simulate", *asked)
    assert done.returncode == 0, done.stderr
    head = " ".join(done.stderr.split("\nround ")[0].split())
    assert head.startswith(
        "3 clients of three.toml learn digits, and are charged mobilenetv3-train "
        "(calibrated, real rounds) for each minibatch; pace, up to 10 a round, 6 rounds, no target"
    )
    limit = (
        "client 0 orin-agx (power limit: no mode surely stays within 4 W, the least takes 13.4 W)"
    )
    assert f"warning: 1 of 3 clients cannot take part: {limit}" in head
    assert "warning: per-round is 10, but only 2 can take part" in head
    assert "clients a round on average (at most 10)" in done.stdout
    assert f"2 of 3 have trained, 1 never: {limit}" in done.stdout
    assert "accuracy 0.9" not in done.stdout  # no target was asked for
    # and so do the live view and the page on the run
    shown = call(main, "top", "runs/x").stdout
    assert f"never: {limit}" in shown and "digits with pace;" in shown
    rows = [line for line in shown.splitlines() if re.match(r" *\d+ +orin-agx ", line)]
    assert [line.split()[0] for line in rows] == ["0", "1", "2"]
    assert "0 of 0" in rows[0] and "power limit: no mode" in rows[0]
    assert re.search(r"energy budget: \S+ J left, a minibatch takes", rows[1])  # it has spent it
    page = Path(call(main, "report", "runs/x").stdout.split(": ")[1].strip()).read_text()
    assert (
        f"never: {limit}" in page and "All 1 runs" not in page and "Until accuracy 0.9" not in page
    )
    repeat = re.search(r"<pre>(wattfed simulate .*?)</pre>", page, re.DOTALL)[1]
    for option in ("--fleet three.toml", "--strategy pace", "--per-round 10", "--seed 0"):
        assert option in repeat
    again = call(main, *repeat.replace("\\\n", " ").split()[1:], "--name", "y")
    assert again.returncode == 0
    assert Path("runs/y/rounds.csv").read_bytes() == Path("runs/x/rounds.csv").read_bytes()


def test_a_fleet_that_cannot_keep_its_limits_is_told_so_before_and_after(call, there):
    done = call(main, "simulate", "--fleet", "weak.toml", "--rounds", 2)
    assert done.returncode == 2
    why = "power limit: no mode surely stays within 4 W, the least takes 13.4 W"
    before, after = done.stderr.split("\nround   1 ")
    assert f"2 of 2 clients cannot take part: clients 0 1 orin-agx ({why})" in " ".join(
        before.split()
    )
    assert f"no client took part in any round: {why}" in after
    # what is said to be enough is enough, and not too much
    for power_w, able in ((13.4, 2), (13.2, 0)):
        file = Path(f"{power_w}.toml")
        file.write_text(f'[[group]]\nboard = "orin-agx"\ncount = 2\npower_w = {power_w}\n')
        plan = plan_of(RunConfig(fleet=str(file)))
        assert plan.clients - plan.n_unable == able


def test_plans_with_too_few_examples_or_a_target_below_chance_are_warned_of(there):
    Path("many.toml").write_text('[[group]]\nboard = "orin-nano"\ncount = 200\n')
    plan = plan_of(RunConfig(fleet="many.toml", target_accuracy=0.05))
    few, target = plan.warnings
    assert few.startswith("half of the clients have 7 examples or fewer: one minibatch")
    assert target.startswith("target accuracy 0.05 is not above chance")
    assert plan.chance == pytest.approx(0.107, abs=0.001)
    assert plan_of(RunConfig()).warnings == ()


def test_a_claim_names_the_level_that_both_hold_the_final_values_and_how_sure_it_is(call, there):
    done = call(
        main, "simulate", "--fleet", "two.toml", "--rounds", 6, "--against", "random:maxn",
        "--per-round", 1, "--local-epochs", 2, "--name", "x",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = [read_run(there / "runs" / name) for name in ("x", "x/against-random-maxn")]
    level = held_by_all([run.rows for run in runs])
    (claim,) = [line for line in done.stdout.splitlines() if line.startswith("To hold ")]
    assert f"To hold accuracy {level:.3f} (mean of three rounds; final: " in claim
    for run in runs:
        assert f"{run.rows[-1].value:.3f}" in claim
    assert claim.endswith("One seed cannot say how sure this is.")
    (product,) = [
        line for line in done.stdout.splitlines() if line.startswith("  ") and " = " in line
    ]
    total, *factors = map(float, re.findall(r"\d+\.\d+", product))
    assert total == pytest.approx(factors[0] * factors[1] * factors[2] * factors[3], rel=0.05)
    assert "boards" in product and "modes" in product


def test_two_failures_are_not_compared(call, there):
    done = call(main, "simulate", "--task", "noop", "--rounds", 3, "--against", "random:maxn")
    assert done.returncode == 0
    assert "pace and random at maxn cannot be compared" in done.stdout
    assert "times less" not in done.stdout and "Nothing was learned: final accuracy" in done.stdout


COMPARED = (
    *("compare", "--fleet", "two.toml", "--per-round", 1, "--strategies", "random,pace"),
    *("--power", "maxn", "--local-epochs", 1, "--jobs", 1),
)


def test_a_comparison_says_what_it_runs_first_and_in_the_end_which_took_less_and_how_sure(
    call, there
):
    asked = (*COMPARED, "--rounds", 5, "--target-accuracy", 0.99, "--out", "c")
    one = call(main, *asked, "--seeds", 1).stdout.splitlines()[-2]
    assert one.endswith("one seed, which cannot say how sure this is.")
    done = call(main, *asked, "--seeds", 2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(
        "2 clients of two.toml learn digits, and are charged mobilenetv3-train "
        "(calibrated, real rounds) for each minibatch; 2 policies, up to 1 a round, 5 rounds, "
        "2 seeds, until accuracy=0.99"
    )
    # no run has reached it: the table is of the best that all hold
    assert "no run reached accuracy 0.99; until 0." in done.stdout
    (table,) = re.findall(r"^(?:random|pace) .*\n(?:random|pace) .*", done.stdout, re.MULTILINE)
    assert " 2/2 " in table and " -  -" not in table
    sentence = done.stdout.splitlines()[-2]
    assert re.match(r"To hold accuracy 0\.\d+ in all seeds", sentence)
    assert "the 95 % interval of the energy is" in sentence and "over 2 seeds, paired" in sentence
    page = Path("c/report.html").read_text()
    assert sentence in page and "No run reached" not in page.replace(
        "No run reached accuracy 0.99", ""
    )


def test_a_comparison_in_which_nothing_was_learned_claims_nothing(call, there):
    asked = (*COMPARED, "--rounds", 3, "--seeds", 1, "--task", "noop", "--out", "c")
    done = call(main, *asked)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2].startswith("Nothing to compare: no run has learned")


def test_results_of_older_code_are_judged_without_a_participants(tmp_path):
    result = read_run(write_comparison(tmp_path / "old"))
    assert result.participants == Participants()
    assert judge_result(result).outcome.startswith("Reached accuracy 0.2 in round 1")
    assert LiveRun(result.folder).look().judgement


def test_participants_are_read_back_as_they_were_written(there):
    result = simulate(RunConfig(fleet="three.toml", rounds=1, local_epochs=1))
    written = json.loads((result.folder / "participants.json").read_text())
    assert written["n_unable"] == 1 and list(written["unable"].values()) == [[0]]
    participants = result.participants
    assert participants.name_of(2) == "orin-agx" and participants.name_of(3) == ""
    assert json.loads(json.dumps(participants.record())) == written
