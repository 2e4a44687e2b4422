"""The Grafana dashboard asks for nothing that the agent does not export."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from tests.client.agent.conftest import ROOT, request, status_of
from tests.client.agent.test_rounds import NODE, answer, message
from tests.waiting import TIMEOUT_S, await_state
from wattfed.client.agent import rpc
from wattfed.client.agent.telemetry import Metrics
from wattfed.client.gate import Gate

DASHBOARD = json.loads((ROOT / "docs" / "grafana-agent.json").read_text())
NAME = re.compile(r"wattfed_\w+")
SAMPLE = re.compile(r"(wattfed_\w+)(?:\{(.*)\})? ")
GIVEN_BY_PROMETHEUS = {"instance"}


def queries() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [v["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    return panels + variables


def labels_of(query: str) -> set[str]:
    """Labels that a query matches, or groups by."""
    groups = re.findall(r"by \(([^)]*)\)", query)
    matched = re.findall(r"(\w+)=~?\"", query) + re.findall(r"label_values\(\w+, (\w+)\)", query)
    return {label.strip() for group in groups for label in group.split(",")} | set(matched)


@pytest.fixture
def exported(start, settings) -> tuple[set[str], set[str]]:
    """Names of metrics, and of their labels, that an agent exports once all has happened."""
    agent = start(settings, Metrics(), metrics="127.0.0.1:0")
    with agent.channel() as channel:
        query = message("query", node={**NODE, "energy-budget-j": 900.0})
        answer(rpc.RoundsStub(channel), query)
        predict = rpc.InferenceStub(channel).Predict
        predict(request(), timeout=TIMEOUT_S)
        with Gate("trainer", socket=agent.socket) as gate, gate.minibatch("train"):
            status_of(lambda: predict(request(deadline_s=0.01), timeout=TIMEOUT_S))  # too late
    address = agent.where.rpartition("metrics at ")[2]

    def samples():
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=TIMEOUT_S) as page:
            found = SAMPLE.findall(page.read().decode())
        return found if any(name == "wattfed_refused_total" for name, _ in found) else []

    exported = await_state(samples)
    labels = {label for _, pairs in exported for label in re.findall(r'(\w+)="', pairs)}
    return {name for name, _ in exported}, labels


def test_every_metric_and_label_of_the_dashboard_is_exported(exported):
    names, labels = exported
    assert {name for query in queries() for name in NAME.findall(query)} <= names
    assert {label for query in queries() for label in labels_of(query)} <= (
        labels | GIVEN_BY_PROMETHEUS
    )


def test_every_panel_has_a_place_of_its_own_and_asks_for_something():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])
        }
        assert panel["targets"] and not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_parentheses_of_every_query_are_balanced():
    for query in queries():
        for pair in ("()", "{}", "[]"):
            assert query.count(pair[0]) == query.count(pair[1]), query
