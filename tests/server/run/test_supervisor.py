from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from powerctl.task.watching import SlowerSteps
from wattfed.server.engines.simulation import simulate
from wattfed.server.run.federation import NoClients
from wattfed.server.run.judging import judge_result
from wattfed.strategies.run_config import RunConfig


@pytest.mark.studies
def test_a_run_that_diverges_goes_back_learns_more_slowly_and_comes_to_something(tmp_path):
    wild = RunConfig(
        learning_rate=0.2, rounds=20, strategy="random", workers=1, out_dir=str(tmp_path)
    )
    result = simulate(wild)
    back = [row.round for row in result.rows if row.entry and row.entry.went_back]
    soon = replace(wild, rounds=back[0] + 2)
    alone = simulate(replace(soon, unsupervised=True, name="alone", checkpoint_every=0))
    assert alone.rows[-1].value < 0.2 and result.rows[-1].value > 0.7
    assert len(back) == 1 and not any(row.entry.went_back for row in alone.rows[1:])
    assert f"went back to its best model in round {back[0]}" in judge_result(result).outcome
    assert json.loads((result.folder / "summary.json").read_text())["went_back"] == 1

    def kill(row):
        if row.round == back[0] - 1:  # it has been decided, but not done
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(replace(soon, name="again"), kill)
    again = simulate(replace(soon, name="again", resume=True))
    until = result.rows[: len(again.rows)]
    assert [row.metrics for row in again.rows] == [row.metrics for row in until]


def test_a_run_in_which_nobody_can_train_ends_long_before_its_rounds_are_over(tmp_path):
    config = RunConfig(
        learning_rate=1e9, rounds=60, strategy="random", workers=1, out_dir=str(tmp_path)
    )
    with pytest.raises(NoClients, match="refused"):
        simulate(config)
    summary = json.loads((tmp_path / config.run_name / "summary.json").read_text())
    assert summary["rounds"] == 12 and "diverged again" in summary["ended"]


def test_a_run_that_stands_still_ends_with_its_best_model_unless_it_is_left_alone(
    config, evaluates
):
    def rises_and_falls(n):
        return {"loss": 2.0 / (n + 1) if n < 10 else 0.3, "accuracy": min(n, 20 - n, 8) / 10}

    evaluates(*map(rises_and_falls, range(100)))
    config = replace(config, rounds=60)
    result = simulate(config)
    best = max(range(3, 13), key=lambda n: sum(min(m, 20 - m, 8) for m in (n - 2, n - 1, n)))
    assert result.rows[-1].round == best + 20
    assert "it stands still: accuracy 0.800" in (result.folder / "summary.json").read_text()
    evaluates(*map(rises_and_falls, range(100)))
    assert simulate(replace(config, unsupervised=True, name="alone")).rows[-1].round == 60


@pytest.mark.parametrize(
    ("losses", "back"),
    [
        (lambda n: 2.0 + 0.5 * (n % 3), 0),  # unlike clients, at first
        (lambda n: 2.0 if n == 0 else 3.1, 1),
        (lambda n: 2.0 if n == 0 else float("nan"), 1),
        (lambda n: max(0.5, 2.0 - 0.3 * n) if n < 12 or n > 14 else 9.0, 0),  # for three rounds
        (lambda n: max(0.5, 2.0 - 0.3 * n) if n < 12 else 2.1, 1),
        (lambda n: -1.0 - 0.01 * n, 0),  # log-likelihoods and the like
        (lambda n: float("inf") if n == 0 else 9.0, 0),
    ],
)
def test_what_is_divergence_and_what_happens_to_healthy_runs(config, evaluates, losses, back):
    evaluates(*({"loss": losses(n), "accuracy": 0.1 + n / 1000} for n in range(100)))
    result = simulate(replace(config, rounds=20))
    assert min(1, sum(row.entry.went_back for row in result.rows[1:])) == back


def test_a_factor_holds_for_the_steps_of_any_optimizer_and_leaves_the_rate_that_one_sees():
    parameter = torch.nn.Parameter(torch.ones(1))
    for make in (torch.optim.SGD, torch.optim.Adam):
        optimizer = make([parameter], lr=0.4)
        parameter.data.fill_(1.0)
        parameter.grad = torch.ones(1)
        with SlowerSteps(0.25):
            optimizer.step()
        assert parameter.item() == pytest.approx(0.9)
        assert optimizer.param_groups[0]["lr"] == 0.4
    optimizer.step()
    assert parameter.item() < 0.6
