from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from powerctl.fulcrum.plans import TIME_RESERVE
from tests.strategies.offers_of import clients, offer, rng
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.fedcs import FedCS, serial_greedy

SECONDS = st.lists(st.floats(0, 20), min_size=1, max_size=8)


def greedy_of_the_paper(download, train, upload, finish, k):
    """Algorithm 3, word by word: who does not fit is discarded, and the search goes on."""
    left, chosen, theta = list(range(len(train))), [], 0.0
    while left and len(chosen) < k:
        slowest = max((download[i] for i in chosen), default=0.0)

        def added(x, slowest=slowest, theta=theta):
            return max(0.0, download[x] - slowest) + upload[x] + max(0.0, train[x] - theta)

        x = min(left, key=added)
        left.remove(x)
        after = theta + upload[x] + max(0.0, train[x] - theta)
        if max(slowest, download[x]) + after <= finish:
            theta = after
            chosen.append(x)
    return chosen


@given(SECONDS, st.data())
def test_serial_uploads_follow_the_paper(train, data):
    same = st.lists(st.floats(0, 20), min_size=len(train), max_size=len(train))
    # whole quarters of a second, so that sums are exact however they are ordered
    train, download, upload = (
        np.round(4 * np.array(values)) / 4 for values in (train, data.draw(same), data.draw(same))
    )
    finish, k = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 6))
    ours = serial_greedy(download, train, upload, finish, k)
    assert ours.tolist() == greedy_of_the_paper(download, train, upload, finish, k)


def test_serial_uploads_admit_fewer_than_parallel_ones():
    offers = Offers.of([offer(i, transfer_s=8.0) for i in range(10)])
    assert len(FedCS(40.0, parallel_upload=True).select(offers, 9, 1, rng())) == 9
    assert len(FedCS(40.0, parallel_upload=False).select(offers, 9, 1, rng())) == 6


def test_training_hides_behind_the_uploads_before_it():
    seconds = np.array([0.0, 0.0]), np.array([1.0, 5.0]), np.array([4.0, 1.0])
    assert serial_greedy(*seconds, finish_s=6.0, k=2).tolist() == [0, 1]


def test_only_the_polled_are_asked_and_overhead_counts():
    offers = Offers.of([offer(i, fast_s=1 + i / 4) for i in range(20)])
    chosen = {c for s in range(9) for c in clients(FedCS(poll=3).select(offers, 3, 1, rng(s)))}
    assert max(chosen) > 9
    assert clients(FedCS(15.0, overhead_s=3.0).select(offers, 9, 1, rng())) == [0]


def test_by_default_other_clients_are_polled_in_each_round():
    offers = Offers.of([offer(i, fast_s=1 + i / 400) for i in range(200)])
    chosen = [clients(FedCS().select(offers, 5, r, rng(r))) for r in range(1, 30)]
    assert all(len(one) == 5 for one in chosen)
    assert 60 < len({client for one in chosen for client in one}) < 145  # not the same five


def test_a_derived_deadline_leaves_the_reserve_that_devices_keep():
    offers = Offers.of([offer(i) for i in range(5)])
    (deadline_s,) = {a.deadline_s for a in FedCS().select(offers, 3, 1, rng())}
    assert deadline_s * (1 - TIME_RESERVE) == offers.fastest_round_s("slack")[0]
