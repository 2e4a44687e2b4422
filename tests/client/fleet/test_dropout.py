"""What goes on around a client, as its offers and reports tell it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wattfed.client.fleet import load_fleet
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.local_client import LocalClient
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.run_config import RunConfig

CONFIG = RunConfig(task="noop", local_epochs=1)


@pytest.fixture
def client(tmp_path):
    def make(around, state=None, number=0, **config):
        path = tmp_path / f"fleet-{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(f'ideal = true\n[[group]]\nboard = "orin-nx"\ncount = 2000\n{around}')
        fleet = load_fleet(str(path))
        return LocalClient(
            replace(CONFIG, **config), fleet[number], len(fleet), state or ClientState()
        )

    return make


def train(one, power="slack", server_round=1, clock_s=0.0, **assignment):
    wanted = RoundAssignment(one.profile.client, 300, power=power, **assignment)
    return one.train(one.task.model(), wanted, server_round, clock_s=clock_s)


BATTERY = "[group.battery]\ncapacity_j = 1000\nreserve = 0.2\ndraw_w = 0\n"


def test_training_leaves_the_reserve_and_takes_what_it_spends(client):
    one = client(BATTERY)
    offer = one.offer()
    assert (offer.battery_j, offer.battery_capacity_j, offer.allowance_j) == (1000, 1000, 800)
    report = train(one)
    assert 600 < report.energy_j <= 800 and not report.lost and not report.broke_budget
    later = one.offer(1000.0)
    assert later.battery_j == pytest.approx(1000 - report.energy_j)
    assert later.allowance_j == pytest.approx(later.battery_j - 200)


def test_at_maxn_a_battery_runs_out_and_the_work_is_lost_but_charged(client):
    one = client(BATTERY)
    report = train(one, power="maxn")
    assert report.lost == "battery" and report.broke_budget
    assert 900 < report.energy_j <= 1000 and 0 < report.minibatches < 300
    assert one.offer(500.0).battery_j >= 0


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 30), st.lists(st.floats(0, 900), max_size=4))
@example(0.0, 0.0, 0.0, [0.0, 3.0])  # enough for a few minibatches, not for the first one's wait
@settings(max_examples=settings.default.max_examples // 2)
def test_whatever_is_planned_a_battery_keeps_its_reserve(
    tmp_path_factory, start, reserve, draw_w, gaps
):
    path = tmp_path_factory.mktemp("battery") / "fleet.toml"
    path.write_text(
        '[[group]]\nboard = "orin-nx"\n[group.battery]\ncapacity_j = 3000\n'
        f"start = {start:.3f}\nreserve = {reserve:.3f}\ndraw_w = {draw_w:.2f}\ncharge_w = 20\n"
    )
    one = LocalClient(CONFIG, load_fleet(str(path))[0], 1000, ClientState())
    clock_s = 0.0
    for gap_s in gaps:
        clock_s += gap_s
        offer = one.offer(clock_s)
        report = train(one, clock_s=clock_s)
        assert 0 <= offer.battery_j <= 3000
        assert report.energy_j <= max(0.0, offer.battery_j - 3000 * round(reserve, 3)) + 1e-6
        clock_s += report.time_s + report.transfer_s


AWAY = "[group.availability]\nmean_on_s = 50\nmean_off_s = 1e9\nforeseen = {}\n"


def test_who_is_away_offers_nothing_whatever_the_power_policy(client):
    one = client(AWAY.format("true"), number=3)
    offer = one.offer(1e5)
    assert offer.decline == "away" and offer.available_s == 0
    report = train(one, power="maxn", clock_s=1e5)
    assert report.decline == "away" and report.energy_j == 0


def there(client, foreseen):
    """Some who are there, but not for long."""
    text = "[group.availability]\nmean_on_s = 40\nmean_off_s = 1\nforeseen = " + foreseen
    many = (client(text, number=number) for number in range(40))
    return [one for one in many if not one.offer().decline]


def test_who_knows_when_it_must_go_is_done_by_then(client):
    reports = [(one.offer().available_s, train(one)) for one in there(client, "true")]
    assert not any(report.lost for _, report in reports)
    assert all(r.time_s + r.transfer_s <= stays_s for stays_s, r in reports if r.minibatches)
    assert sum(0 < report.minibatches < 300 for _, report in reports) > 5


def test_who_does_not_loses_its_work(client):
    ones = there(client, "false")
    assert {one.offer().available_s for one in ones} == {math.inf}
    reports = [train(one) for one in ones]
    left = [report for report in reports if report.lost == "left"]
    assert len(left) > 5 and any(0 < report.minibatches < 300 for report in left)
    assert any(report.energy_j > 0 for report in left)


def test_a_crash_ends_training_and_charges_it(client):
    reports = [
        train(client("[group.failures]\ncrashes_per_h = 100\n", number=n)) for n in range(30)
    ]
    crashed = [report for report in reports if report.lost == "crashed"]
    assert 5 < len(crashed) < 30
    assert all(report.minibatches < 300 for report in crashed)
    assert sum(report.energy_j for report in crashed) > 0
    assert all(report.minibatches == 300 for report in reports if not report.lost)


def test_a_deadline_is_no_crash(client):
    one = client("[group.failures]\ncrashes_per_h = 0.001\n")
    report = train(one, deadline_s=20.0)
    assert 0 < report.minibatches < 300 and not report.lost


SERVING = "[group.inference]\nrate_hz = {}\nlatency_s = {}\n"


def test_while_it_serves_training_takes_longer_and_keeps_the_latency(client):
    alone, serving = client(""), client(SERVING.format(20, 1.5))
    assert serving.offer().front.time_s[0] > alone.offer().front.time_s[0]
    report = train(serving)
    assert report.minibatches == 300 and not report.broke_latency
    assert 0 < report.inference_p99_s <= 1.5 and report.inference_energy_j > 0
    assert report.time_s == pytest.approx(report.planned_time_s, rel=0.25)


def test_where_no_mode_keeps_the_latency_a_plan_declines_and_maxn_breaks_it(client):
    one = client(SERVING.format(50, 0.2))
    assert "requests/s in time" in one.offer().decline and not train(one).minibatches
    report = train(one, power="maxn")
    assert report.minibatches == 300 and report.broke_latency
