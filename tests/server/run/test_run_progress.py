from __future__ import annotations

from tests.strategies.offers_of import recorded, report
from wattfed.server.run.history import RoundRow
from wattfed.server.run.run_progress import row_line
from wattfed.strategies.round.ledger import Ledger


def line_of(*reports):
    ledger = Ledger()
    entry = recorded(ledger, 1, [], reports)
    return row_line(RoundRow(1, {"accuracy": 0.5}, ledger.clock_s, ledger.energy_j, entry))


def test_a_round_says_how_many_clients_guards_stepped_down():
    stepped = report(0, guard_steps=2, guard_cause="power")
    assert "1 stepped down" in line_of(stepped, report(1))
    assert "stepped down" not in line_of(report(0), report(1))
