"""A run is seen as it is, at any moment, however it was ended."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from dataclasses import replace

import pytest

from powerctl.errors import InvalidInput
from tests.strategies.offers_of import report
from wattfed.server.live.run import LiveRun, run_in
from wattfed.server.live.snapshot import ClientAccount, RoundWork, trouble_of, under_way
from wattfed.server.run.results import ResultsFolder, read_run
from wattfed.strategies.protocol import RoundAssignment


def test_a_run_is_seen_round_by_round_while_it_goes_on(running, folder):
    live = LiveRun(folder)
    assert [row.round for row in live.look().rows] == [0]
    running.go_on()
    assert live.look().round == 1 and not live.look().is_finished
    running.go_on(2)
    assert [row.round for row in live.look().rows] == [0, 1, 2, 3]
    running.finish()
    assert live.look().is_finished and live.look().round == 4


def test_the_round_that_goes_on_is_shown_until_it_is_over(running, folder):
    running.go_on()
    assigned = [RoundAssignment(3, 10, deadline_s=9.0), RoundAssignment(0, 10)]
    ResultsFolder(folder).begin_round(2, assigned)
    now = LiveRun(folder).look()
    going_on = now.under_way
    assert (going_on.round, going_on.clients) == (2, (3, 0))
    assert going_on.deadline_s == math.inf and now.written_s >= going_on.began_s
    ResultsFolder(folder).begin_round(2, assigned[:1])
    now = LiveRun(folder).look()
    began = time.strftime("%H:%M:%S", time.localtime(now.under_way.began_s))
    told = under_way(now.under_way, now.participants)
    assert told == f"round 2 began at {began}: client 3 orin-nano; deadline 9 s"
    running.go_on()
    assert json.loads((folder / "round.json").read_text())["round"] == 2
    assert LiveRun(folder).look().under_way is None
    running.finish()
    assert not (folder / "round.json").exists()


def test_what_was_followed_equals_what_is_read_at_the_end(running, folder):
    live = LiveRun(folder)
    running.go_on(2)
    live.look()
    running.finish()
    now, whole = live.look(), read_run(folder)
    assert now == replace(LiveRun(folder).look(), written_s=now.written_s)
    assert now.rows == whole.rows and now.config == whole.config
    reports = [report for _, report in whole.ledger.reports]
    for account in now.clients:
        own = [r for r in reports if r.client == account.client]
        trained = [r for r in own if r.minibatches]
        assert (account.trained, account.last) == (len(trained), trained[-1])
        assert account.declined == len(own) - len(trained)
        assert account.energy_j == pytest.approx(sum(r.energy_j for r in own))
        limit_j = 2000 if account.client < 2 else math.inf
        assert account.budget_left_j == pytest.approx(limit_j - account.energy_j)
    for entry in whole.ledger.entries:
        assert now.work[entry.round].energy_j == pytest.approx(entry.train_energy_j)


def test_a_record_is_json_without_infinity(running, folder):
    running.go_on()
    record = LiveRun(folder).look().record()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["rounds"][1]["training_expected_energy_j"] > 0
    assert len(record["clients"]) == record["clients_seen"] == 2


def test_lines_that_a_kill_broke_off_are_left_out(running, folder):
    running.go_on(2)
    running.finish()
    (folder / "summary.json").unlink()
    for name in ("rounds.csv", "reports.jsonl"):
        os.truncate(folder / name, (folder / name).stat().st_size - 9)
    now = LiveRun(folder).look()
    assert now.round == 3 and not now.is_finished
    assert sum(account.trained + account.declined for account in now.clients) == 7
    assert read_run(folder).rows == now.rows


def test_a_run_that_begins_anew_or_goes_on_from_an_earlier_round_is_read_again(running, folder):
    live = LiveRun(folder)
    running.finish()
    assert live.look().round == 4
    lines = (folder / "rounds.csv").read_text().splitlines(keepends=True)
    (folder / "rounds.csv").write_text("".join(lines[:3]))
    assert live.look().round == 1
    shutil.rmtree(folder)
    ResultsFolder(folder).begin(replace(running.config, rounds=9))
    now = live.look()
    assert now.config.rounds == 9 and not now.rows and not now.clients and now.summary == {}


def test_the_run_that_began_last_is_found_in_the_folders_above(running, folder):
    running.finish()
    older = shutil.copytree(folder, folder.parents[1] / "compared" / "runs" / "older")
    os.utime(older / "config.json", (1, 1))
    assert run_in(folder.parents[1]) == folder == run_in(folder)
    os.utime(older / "config.json")
    assert LiveRun(folder.parents[1]).look().folder == older


def test_folders_without_a_run_are_named(tmp_path):
    (tmp_path / "config.json").mkdir()
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InvalidInput, match="no run here, nor in its folders"):
            LiveRun(path).look()


def test_damaged_lines_are_named(running, folder):
    running.finish()
    path, live, expected = folder / "reports.jsonl", LiveRun(folder), LiveRun(folder).look()
    whole = path.read_text()
    first, second, *others = whole.splitlines(keepends=True)
    path.write_text("".join([first, second.replace('"client"', '"clown"'), *others]))
    for _ in range(2):
        with pytest.raises(InvalidInput, match=r"reports\.jsonl, line 2: damaged"):
            live.look()
    path.write_text(whole)
    assert live.look().clients == expected.clients


def test_of_many_clients_those_asked_last_are_shown(running, folder):
    now = replace(
        LiveRun(folder).look(),
        clients=tuple(ClientAccount(i, last_round=i % 3) for i in range(9)),
    )
    assert [account.client for account in now.heard_last(4)] == [1, 2, 5, 8]
    assert now.n_clients == 9


def test_predictions_are_of_the_work_that_was_done():
    work = RoundWork()
    work.enter(report(0, minibatches=5, time_s=6.0, energy_j=110.0))  # planned: 10 in 10 s, 200 J
    work.enter(report(1))
    assert work == RoundWork(10.0, 10.0, 300.0, 310.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"minibatches": 0, "decline": "away"}, "declined: away"),
        ({"lost": "crashed", "peak_power_w": 99.0}, "update lost: crashed"),
        ({"peak_power_w": 99.0, "energy_j": 600.0}, "over its power and energy limit"),
        ({"used": False}, "update came too late"),
        ({"guard_steps": 1, "guard_cause": "26 W"}, "stepped down: 26 W"),
        ({"stopped": "deadline"}, "stopped early: deadline"),
    ],
)
def test_what_went_wrong_with_a_client_is_said(changes, words):
    assert trouble_of(report(0, **changes)) == words
