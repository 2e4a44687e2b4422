"""An agent under full load loses nothing and does not grow."""

import pytest

from benchmarks.agent_load import run

pytestmark = pytest.mark.studies


def test_64_clients_at_full_speed_are_all_answered_or_refused_and_memory_stays_flat():
    found = run(requests=2000, clients=64)
    assert found["lost"] == 0
    assert set(found["statuses"]) <= {"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    assert found["statuses"]["OK"] > 0
    _, early_mb, late_mb = found["memory_mb"]
    assert late_mb - early_mb < 20
