from __future__ import annotations

import numpy as np
import pytest

from tests.strategies.offers_of import clients, offer, report, rng
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.haccs import (
    HACCS,
    cluster_centres,
    cluster_weights,
    draw_clusters,
    nearest_centre,
    root_shares,
)

KINDS = [(9, 1, 0), (0, 9, 1), (1, 0, 9)]


def three_kinds(n=12):
    """Clients of three label distributions in turn, the later the slower."""
    return Offers.of([offer(i, fast_s=1 + i / 10, label_counts=KINDS[i % 3]) for i in range(n)])


def test_similar_labels_make_a_cluster_whatever_the_amount_of_data():
    counts = np.array(KINDS * 4, dtype=float) * np.arange(1, 13)[:, None]
    roots = root_shares(counts)
    centres = cluster_centres(roots, 0.3, 50, rng())
    cluster = nearest_centre(roots, centres)
    assert len(centres) == 3
    assert len({tuple(cluster[i::3]) for i in range(3)}) == 3
    assert all(len(set(cluster[i::3])) == 1 for i in range(3))


def test_noise_that_makes_counts_negative_is_survived():
    assert np.isfinite(root_shares(np.array([[-1.0, -2.0], [3.0, -1.0]]))).all()


def test_the_number_of_clusters_is_bounded():
    counts = rng().dirichlet(np.full(10, 0.1), 3000)
    assert len(cluster_centres(root_shares(counts), 0.01, 20, rng())) <= 20


def test_the_fastest_of_each_cluster_are_taken():
    for seed in range(20):
        chosen = clients(HACCS().select(three_kinds(), 3, 1, rng(seed)))
        for kind in range(3):
            of_kind = [c for c in chosen if c % 3 == kind]
            assert of_kind == [kind + 3 * i for i in range(len(of_kind))]


def test_a_cluster_of_high_loss_is_drawn_more_often():
    policy = HACCS(rho=0.0)
    policy.observe([report(i, loss=8.0 if i % 3 == 1 else 1.0) for i in range(12)])
    drawn = [c % 3 for s in range(60) for c in clients(policy.select(three_kinds(), 1, 1, rng(s)))]
    assert np.mean(np.array(drawn) == 1) == pytest.approx(0.8, abs=0.12)


def test_the_slowest_cluster_has_no_weight_by_latency_alone():
    weight = cluster_weights(np.array([0, 0, 1]), np.array([1.0, 3, 4]), np.ones(3), rho=1.0)
    np.testing.assert_allclose(weight, [0.5, 0])


def test_one_cluster_alone_still_has_a_weight():
    assert cluster_weights(np.zeros(3, dtype=int), np.ones(3), np.zeros(3), 1.0).tolist() == [1]


def test_draws_of_a_used_up_cluster_go_to_the_others():
    draws = draw_clusters(np.array([1.0, 0.0]), np.array([2, 9]), 5, rng())
    assert draws.tolist() == [2, 3]  # others loop for ever, or select fewer
    assert draw_clusters(np.array([1.0, 1.0]), np.array([1, 2]), 9, rng()).tolist() == [1, 2]


def test_clients_that_tell_no_labels_are_each_a_cluster():
    offers = Offers.of([offer(i, fast_s=1 + i / 10) for i in range(10)])
    chosen = {c for s in range(40) for c in clients(HACCS().select(offers, 3, 1, rng(s)))}
    assert len(chosen) > 5


def test_who_comes_later_joins_the_nearest_cluster():
    policy = HACCS()
    policy.select(three_kinds(), 3, 1, rng())
    late = Offers.of([offer(40, label_counts=(8, 2)), offer(41, label_counts=(0, 0, 5))])
    policy.select(late, 2, 2, rng())
    assert policy._cluster[40] == policy._cluster[0]
    assert policy._cluster[41] == policy._cluster[2]
