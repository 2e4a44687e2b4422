"""What Prometheus is told of a run: units in names, and never more series than a few hundred."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from wattfed.server.live.prometheus import MOST_CLIENTS, render_metrics
from wattfed.server.live.run import LiveRun
from wattfed.server.live.snapshot import ClientAccount

UNITS = ("_seconds", "_joules", "_ratio", "_info")
USERS = {"wattfed_metric_value"}  # in whatever unit it is
COUNTS = {
    "finished",
    "rounds",
    "rounds_wanted",
    "troubles",
    "clients_asked",
    "clients_unable",
    "client_rounds",
}


def families(now):
    return {f.name: f.samples for f in text_string_to_metric_families(render_metrics(now).decode())}


def test_metrics_are_the_numbers_of_the_run(running, folder):
    running.go_on(2)
    now = LiveRun(folder).look()
    told, last = families(now), now.rows[-1]

    def value(what, **labels):
        return next(s.value for s in told[f"wattfed_{what}"] if s.labels == labels)

    assert value("rounds") == 2 and value("run_finished") == 0
    assert value("accuracy_ratio") == last.value
    assert value("round_time_seconds") == last.entry.round_time_s
    assert value("round_energy_joules") == last.entry.energy_j
    assert value("fleet_energy_joules", part="train") == now.summary["train_energy_j"]
    assert value("round_training_energy_joules", kind="predicted") == now.work[2].expected_energy_j
    limited = [account for account in now.clients if account.client < 2]
    assert limited and value("budget_left_joules") == sum(a.budget_left_j for a in limited)
    for account in limited:
        left = value("client_budget_left_joules", client=str(account.client), name="orin-agx")
        assert left == account.budget_left_j
    running.finish()
    assert families(LiveRun(folder).look())["wattfed_run_finished"][0].value == 1


def test_every_name_ends_with_its_unit_or_counts(running, folder):
    running.go_on()
    for name in families(LiveRun(folder).look()).keys() - USERS:
        assert name.endswith(UNITS) or name.removeprefix("wattfed_").removeprefix("run_") in COUNTS


def test_a_run_that_has_only_begun_has_metrics_too(running, folder):
    now = LiveRun(folder).look()
    assert "wattfed_round_time_seconds" not in families(now)
    assert "wattfed_accuracy_ratio" not in families(replace(now, rows=()))


@pytest.mark.parametrize(("n_clients", "is_few"), [(MOST_CLIENTS, True), (100_000, False)])
def test_clients_of_large_fleets_have_no_series_of_their_own(running, folder, n_clients, is_few):
    accounts = tuple(ClientAccount(i, budget_left_j=1.0) for i in range(0, n_clients, 9))
    now = replace(LiveRun(folder).look(), clients=(*accounts, ClientAccount(n_clients - 1)))
    told = families(now)
    assert ("wattfed_client_budget_left_joules" in told) == is_few
    assert told["wattfed_budget_left_joules"][0].value == len(accounts)
    assert sum(map(len, told.values())) < 4 * MOST_CLIENTS


def test_no_label_is_one_that_prometheus_gives_its_targets(running, folder):
    running.go_on()
    told = families(LiveRun(folder).look())
    labels = {label for samples in told.values() for s in samples for label in s.labels}
    assert {"run", "client", "name"} <= labels and not {"job", "instance"} & labels
