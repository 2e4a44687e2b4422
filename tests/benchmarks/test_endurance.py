"""Long runs: neither memory nor open files grow with the rounds, or with requests to an agent."""

import pytest

from benchmarks.endurance import agent_load, simulation

pytestmark = pytest.mark.studies


def test_simulated_rounds_leave_nothing_behind_but_the_books():
    found = simulation(rounds=100, task="noop")
    assert found["descriptors"][-1] <= found["descriptors"][0] + 2  # of the checkpoint under way
    assert found["memory_mb"][-1] - found["memory_mb"][0] < 5


def test_requests_and_rounds_leave_nothing_behind_in_an_agent():
    found = agent_load(requests=1000, rounds=10, clients=16)
    assert found["lost"] == 0 and found["rounds_trained"]
    assert found["descriptors"][-1] <= found["descriptors"][1] + 2
    assert found["memory_mb"][-1] - found["memory_mb"][1] < 20
