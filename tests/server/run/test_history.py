from __future__ import annotations

import pytest

from tests.strategies.offers_of import recorded, report
from wattfed.server.run.history import RoundRow, best_value, spending_to
from wattfed.strategies.round.ledger import Ledger


def history():
    ledger, rows = Ledger(), [RoundRow(0, {"accuracy": 0.1}, 0.0, 0.0)]
    for number, accuracy in enumerate((0.5, 0.92, 0.88), start=1):
        entry = recorded(ledger, number, [], [report(0), report(1, time_s=20.0)])
        metrics = {"accuracy": accuracy}
        rows.append(RoundRow(number, metrics, ledger.clock_s, ledger.energy_j, entry))
    return rows


def test_spending_ends_where_the_target_was_first_held():
    spent = spending_to(history(), [20, 20, 20], 0.5)
    assert spent.reached and spent.rounds == 2  # the mean of 0.1, 0.5 and 0.92
    assert spent.time_s == 41.0 and spent.minibatches == 40
    assert not spending_to(history(), [20, 20, 20], 0.9).reached


def test_an_energy_is_the_product_of_its_three_factors():
    spent = spending_to(history(), [20, 20, 20], 0.9)
    product = spent.minibatches * spent.minibatch_j * spent.waiting_factor
    assert product == pytest.approx(spent.energy_j)


def test_a_target_never_reached_counts_the_whole_run():
    spent = spending_to(history(), [20, 20, 20], 0.99)
    assert not spent.reached and spent.rounds == 3
    assert best_value(history()) == 0.92
