from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.errors import InvalidInput, UnknownName
from wattfed.strategies.evaluation import EvaluationPlan, numbers_of, weighted
from wattfed.strategies.protocol import EvaluationReport

NUMBERS = st.floats(-1e6, 1e6)
TOLD = st.lists(st.tuples(st.integers(1, 1000), NUMBERS), min_size=1, max_size=20)


def mean(pairs):
    reports = ((EvaluationReport(i, n), {"m": value}) for i, (n, value) in enumerate(pairs))
    return weighted(reports).get("m")


@given(TOLD)
def test_the_mean_is_by_examples_and_within_what_was_told(told):
    counts, values = np.array(told).T
    assert mean(told) == pytest.approx(np.average(values, weights=counts), abs=1e-6)
    assert values.min() - 1e-6 <= mean(told) <= values.max() + 1e-6


@given(TOLD, st.integers(1, 1000))
def test_who_has_no_number_of_a_metric_changes_nothing(told, examples):
    assert mean([*told, (examples, math.nan), (0, 5.0)]) == mean(told)


def test_what_nobody_has_a_number_of_is_nan_and_not_left_out():
    assert math.isnan(mean([(3, math.nan), (0, 1.0)]))
    assert weighted([]) == {}


def test_what_a_client_sends_that_is_no_metric_is_left():
    sent = {"accuracy": 1, "a\nb": 2.0, "": 3.0, "list": [1.0], "nan": math.nan}
    assert list(numbers_of(sent)) == ["accuracy", "nan"]


@given(st.integers(0, 50), st.integers(1, 9), st.floats(0.01, 1), st.integers(1, 40))
def test_so_many_clients_evaluate_after_every_so_many_rounds(n, every, share, server_round):
    evaluating = EvaluationPlan("clients", every, share)
    able = np.arange(n)[::-1] + 7
    asked = evaluating.who(able, 3, server_round)
    due = n and server_round % every == 0
    assert len(asked) == (math.ceil(share * n) if due else 0)
    assert asked == sorted(set(asked)) and set(asked) <= set(able.tolist())
    assert asked == evaluating.who(np.sort(able), 3, server_round)


def test_places_are_checked():
    with pytest.raises(UnknownName, match="place of evaluation 'cloud'"):
        EvaluationPlan("cloud")
    with pytest.raises(InvalidInput, match="evaluate-share is above 0 and up to 1, got 1.5"):
        EvaluationPlan(share=1.5)
    with pytest.raises(InvalidInput, match="evaluate-every must be at least 1"):
        EvaluationPlan(every=0)
    assert EvaluationPlan().on_clients(False) and not EvaluationPlan().on_clients(True)
