from __future__ import annotations

import math

import numpy as np
import pytest
from flwr.app import ConfigRecord

from powerctl.errors import InvalidInput
from tests.strategies.offers_of import offer, report
from wattfed.strategies.protocol import (
    RoundAssignment,
    RoundOffer,
    RoundReport,
    decode_record,
    encode_record,
)


def through_the_wire(record):
    return ConfigRecord({"server-round": 1, **encode_record(record)})


def of_kind(record, values):
    """Fields as a record of the kind has them on the wire."""
    prefix = next(iter(encode_record(record))).partition(".")[0]
    return {f"{prefix}.{name}": value for name, value in values.items()}


@pytest.mark.parametrize("sent", [offer(3), offer(4, decline="no mode")], ids=["able", "declining"])
def test_an_offer_arrives_as_it_was_sent(sent):
    got = decode_record(RoundOffer, through_the_wire(sent))
    assert got.front.modes == sent.front.modes
    np.testing.assert_array_equal(got.front.energy_j, sent.front.energy_j)
    assert (got.maxn, got.preset) == (sent.maxn, sent.preset)
    assert (got.client, got.decline, got.transfer_s) == (sent.client, sent.decline, 0.5)
    assert math.isnan(got.loss)


@pytest.mark.parametrize(
    "sent",
    [
        RoundAssignment(2, 7, 3.5, 100.0, "fastest"),
        RoundAssignment(1, 1),
        report(5, modes=("6c/1510/624/2133",), stopped="energy"),
        report(6, power_limit_w=math.inf),
        report(7, budget_left_j=-3.0),
        report(9, loss=-0.98),
        report(8, minibatches=0, planned_minibatches=0, time_s=0.0, energy_j=0.0, examples=0),
    ],
)
def test_assignments_and_reports_arrive_as_they_were_sent(sent):
    assert decode_record(type(sent), through_the_wire(sent)) == sent


@pytest.mark.parametrize("kind", [RoundOffer, RoundAssignment, RoundReport])
def test_what_is_no_such_record_is_refused(kind):
    with pytest.raises(InvalidInput, match=kind.__name__):
        decode_record(kind, ConfigRecord({"client": 1}))


@pytest.mark.parametrize(
    ("sent", "lie"),
    [
        (report(1), {"planned_minibatches": 0}),
        (report(1), {"time_s": 0.0}),
        (report(1), {"energy_j": math.nan}),
        (report(1), {"energy_j": -5.0}),
        (report(1), {"peak_power_w": math.inf}),
        (report(1), {"loss": math.inf}),
        (report(1), {"loss": -math.inf}),
        (report(1), {"minibatches": 1.5}),
        (report(1), {"client": "1"}),
        (report(1), {"decline": 1}),
        (offer(1), {"time_s": [math.nan]}),
        (offer(1), {"energy_j": [0.0]}),
        (offer(1), {"modes": [], "time_s": [], "energy_j": []}),
        (offer(1), {"minibatches": 0}),
        (offer(1), {"maxn_time_s": 0.0}),
        (offer(1), {"label_counts": [math.inf]}),
        (offer(1), {"transfer_s": -1.0}),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(sent, lie):
    with pytest.raises(InvalidInput, match=f"not a {type(sent).__name__}"):
        decode_record(type(sent), ConfigRecord({**through_the_wire(sent), **of_kind(sent, lie)}))
