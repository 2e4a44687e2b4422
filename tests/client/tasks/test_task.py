from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from powerctl.errors import InvalidInput, UnknownName
from tests.tasks import evaluate, load_task
from wattfed.client.tasks.skews import split_samples


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=200),
    st.integers(1, 20),
    st.floats(0.05, 10),
    st.integers(0, 5),
)
def test_a_split_gives_every_sample_to_one_client_and_every_client_one(labels, n, alpha, seed):
    labels = np.array(labels)
    if n > len(labels):
        with pytest.raises(InvalidInput, match="cannot split"):
            split_samples(labels, n, f"dirichlet:{alpha}", seed)
        return
    parts = split_samples(labels, n, f"dirichlet:{alpha}", seed)
    assert len(parts) == n and all(len(part) for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    again = split_samples(labels, n, f"dirichlet:{alpha}", seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_a_small_alpha_makes_clients_unlike():
    labels = np.repeat(np.arange(10), 100)

    def share_of_top_label(alpha):
        parts = split_samples(labels, 10, f"dirichlet:{alpha}", 0)
        return np.mean([np.bincount(labels[part]).max() / len(part) for part in parts])

    assert share_of_top_label(0.1) > 0.4 > 0.2 > share_of_top_label(100.0)


def test_digits_are_real_images_kept_apart_for_training_and_test():
    task = load_task("digits")
    train, test = task.train_samples(), task.test_samples()
    assert (len(train), len(test)) == (1437, 360)
    assert train.inputs.shape[1:] == (1, 8, 8) and 0 <= train.inputs.min() < train.inputs.max() == 1
    rows = {tuple(image.flatten().tolist()) for image in train.inputs}
    assert not any(tuple(image.flatten().tolist()) in rows for image in test.inputs)


def test_a_fresh_model_knows_nothing_and_evaluation_counts_rightly():
    torch.manual_seed(0)
    task = load_task("digits")
    metrics = evaluate(task.model(), task.test_samples())
    assert metrics["accuracy"] < 0.3 and metrics["loss"] == pytest.approx(np.log(10), abs=0.1)

    class Oracle(torch.nn.Module):
        def forward(self, inputs):
            return 20 * torch.nn.functional.one_hot(inputs, 10).float()

    labels = torch.arange(10)
    samples = type(task.test_samples())(labels, labels)
    right = {"accuracy": 1.0, "loss": pytest.approx(0, abs=1e-6)}
    assert evaluate(Oracle(), samples, batch_size=3) == right


@pytest.fixture
def small_cifar10(tmp_path, monkeypatch):
    """Twenty images a batch in CIFAR-10's own format, with the checks of the real sums off."""
    from powerctl.torchvision_cpu import import_torchvision

    datasets = import_torchvision().datasets
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *args: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        images = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        labels = rng.integers(0, 10, 20).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": images, "labels": labels}))
    names = {"label_names": [f"class {i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names))
    return tmp_path


def test_cifar10_is_read_from_a_local_folder(small_cifar10):
    task = load_task("cifar10", str(small_cifar10))
    train, test = task.train_samples(), task.test_samples()
    assert train.inputs.shape == (100, 3, 32, 32) and len(test) == 20
    assert abs(train.inputs.mean()) < 0.3
    assert task.model()(test.inputs).shape == (20, 10)


def test_without_cifar10_the_error_says_how_to_get_it(tmp_path):
    with pytest.raises(InvalidInput, match=r"cifar-10-python.tar.gz.*--data-dir"):
        load_task("cifar10", str(tmp_path)).test_samples()


def test_an_unknown_task_is_named():
    with pytest.raises(UnknownName, match="cifar10, digits, fashion-mnist, fortunes, images-cnn"):
        load_task("mnist")
