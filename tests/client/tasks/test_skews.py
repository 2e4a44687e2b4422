from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.errors import InvalidInput, UnknownName
from tests.tasks import label_counts, load_task
from wattfed.client.tasks.skews import split_samples

LABELS = np.arange(20_000) % 10
N = 100
skews = st.sampled_from(
    ["dirichlet:0.1", "dirichlet:5", "shards:2", "quantity:2", "iid", "natural"]
)


@given(skews, st.integers(1, 60), st.integers(0, 3), st.integers(2, 7))
def test_every_sample_has_one_client_and_every_client_a_sample(skew, n, seed, n_labels):
    labels = np.random.default_rng(0).integers(0, n_labels, 200)
    groups = np.random.default_rng(1).geometric(0.2, 200)
    split = split_samples(labels, n, skew, seed, groups)
    assert len(split) == n and split.sizes.min() >= 1
    assert sorted(np.concatenate(list(split)).tolist()) == list(range(200))
    again = split_samples(labels, n, skew, seed, groups)
    assert all(np.array_equal(a, b) for a, b in zip(split, again, strict=True))


def labels_of(split):
    return np.array([len(np.unique(LABELS[part])) for part in split])


def test_shards_give_few_labels_in_equal_parts():
    split = split_samples(LABELS, N, "shards:2", 0)
    assert labels_of(split).max() <= 3 and labels_of(split).mean() < 2.1
    assert set(split.sizes.tolist()) == {200}


def test_quantity_gives_unequal_parts_of_one_mix():
    split = split_samples(LABELS, N, "quantity:1.2", 0)
    assert np.log(split.sizes).std() == pytest.approx(1.2, rel=0.2)
    large = np.bincount(LABELS[split[int(split.sizes.argmax())]])
    assert large.min() > 0.7 * large.max()


def test_iid_gives_equal_parts_of_one_mix():
    split = split_samples(LABELS, N, "iid", 0)
    assert set(split.sizes.tolist()) == {200} and labels_of(split).min() == 10
    assert not np.array_equal(split[0], split_samples(LABELS, N, "iid", 1)[0])


def test_natural_clients_stay_whole_where_there_are_enough_of_them():
    groups = np.repeat([7, 3, 9, 1, 4], [50, 10, 30, 20, 10])
    few = split_samples(LABELS[:120], 3, "natural", 0, groups)
    assert sorted(few.sizes.tolist()) == [30, 40, 50]
    held = [set(groups[part].tolist()) for part in few]
    assert sum(map(len, held)) == 5  # nobody's samples are divided
    more = split_samples(LABELS[:120], 8, "natural", 0, groups)
    assert sorted(more.sizes.tolist()) == [10, 10, 15, 15, 16, 17, 17, 20]
    assert all(len(set(groups[part].tolist())) == 1 for part in more)
    other = split_samples(LABELS[:120], 8, "natural", 1, groups)
    assert any(not np.array_equal(a, b) for a, b in zip(more, other, strict=True))


def test_a_task_without_natural_clients_says_so():
    with pytest.raises(InvalidInput, match="no natural clients"):
        split_samples(LABELS, N, "natural", 0)
    with pytest.raises(InvalidInput, match="natural, without a degree"):
        split_samples(LABELS, N, "natural:2", 0)


def test_clients_tell_their_labels_with_as_much_noise_as_privacy_asks_for():
    task = load_task("digits")
    told = label_counts("digits", 20, "shards:2")
    labels = task.train_samples().labels.numpy()
    split = split_samples(labels, 20, "shards:2", 0)
    assert told.tolist() == [np.bincount(labels[part], minlength=10).tolist() for part in split]
    noise = label_counts("digits", 20, "shards:2", privacy=0.1) - told
    assert np.abs(noise).mean() == pytest.approx(10, rel=0.3)
    assert np.array_equal(noise, label_counts("digits", 20, "shards:2", privacy=0.1) - told)


@pytest.mark.parametrize(
    ("skew", "message"),
    [
        ("dirichlet", "write dirichlet:NUMBER"),
        ("iid:3", "iid, without a degree"),
        ("shards:1.5", "whole number from 1 to 200"),
        ("shards:201", "whole number from 1 to 200"),
        ("quantity:-1", "cannot be negative"),
        ("dirichlet:0", "must be positive"),
    ],
)
def test_a_skew_that_cannot_be_is_named(skew, message):
    with pytest.raises(InvalidInput, match=message):
        split_samples(LABELS, N, skew, 0)
    with pytest.raises(UnknownName, match="dirichlet, iid, natural, quantity, shards"):
        split_samples(LABELS, N, "labels:2", 0)
    with pytest.raises(InvalidInput, match="cannot split 20000 samples over 20001"):
        split_samples(LABELS, 20_001, "iid", 0)
