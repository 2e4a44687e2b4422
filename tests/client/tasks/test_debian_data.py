"""Tasks on data that Debian packages, in its formats, and on the packages where they are there."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from powerctl.errors import InvalidInput
from tests.tasks import load_task
from wattfed.client.tasks import fashion_mnist, fortunes
from wattfed.client.tasks.fashion_mnist import FashionMnist
from wattfed.client.tasks.fortunes import Fortunes
from wattfed.client.tasks.sampled import SampledTask


def images(folder: Path, n=40) -> Path:
    """Fashion-MNIST's files, with images that are their labels."""
    labels = np.arange(n, dtype=np.uint8) % 10
    pixels = np.repeat(labels, 28 * 28).tobytes()
    for part in ("train", "t10k"):
        for what, head, content in (("images", 16, pixels), ("labels", 8, labels.tobytes())):
            kind = 3 if what == "images" else 1
            path = folder / f"{part}-{what}-idx{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(bytes(head) + content))
    return folder


def test_images_and_labels_belong_together(tmp_path):
    train = FashionMnist(images(tmp_path), samples=30).train_samples()
    assert train.inputs.shape == (30, 1, 28, 28) and train.labels.tolist() == [*range(10)] * 3
    torch.testing.assert_close(train.inputs.mean(dim=(1, 2, 3)) * 255, train.labels.float())


@pytest.mark.parametrize("damage", ["gone", "short", "no gzip"])
def test_files_that_are_not_fashion_mnist_are_refused_by_name(tmp_path, damage):
    path = images(tmp_path) / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "short" else b"no")
    with pytest.raises(InvalidInput, match="fashion-mnist|train-images"):
        FashionMnist(tmp_path, samples=30).train_samples()
    with pytest.raises(InvalidInput, match="1 to 60000"):
        FashionMnist(tmp_path, samples=0)


def texts(folder: Path) -> Path:
    """Two collections of ten texts each."""
    for name, word in (("abc", "abcdefghij" * 6), ("xyz", "XYZ, " * 12)):
        (folder / name).write_text("\n%\n".join(f"{k} {word}" for k in range(10)))
        (folder / f"{name}.dat").write_bytes(b"index")
    return folder


def test_a_window_is_followed_by_its_label_and_belongs_to_a_collection(tmp_path):
    task = Fortunes(texts(tmp_path))
    train, owner = task.train_samples(), task.natural_clients
    assert len(owner) == len(train) and set(owner.tolist()) == {0, 1}
    window, following = train.inputs[0].tolist(), int(train.labels[0])
    letter = fortunes._ALPHABET.index
    assert window == [letter(c) for c in ("1 " + "abcdefghij" * 6)[:24]]  # every fifth is a test
    assert following == letter(("1 " + "abcdefghij" * 6)[24])
    assert task.model()(train.inputs).shape == (len(train), len(fortunes._ALPHABET) + 1)
    split = SampledTask(task).split(2, "natural", 0)
    assert {tuple(set(owner[part].tolist())) for part in split} == {(0,), (1,)}


def test_a_folder_without_texts_is_refused_with_what_to_install(tmp_path):
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(InvalidInput, match="apt install fortunes"):
            Fortunes(folder).train_samples()


@pytest.mark.studies
@pytest.mark.parametrize(
    ("name", "folder", "reached"),
    [("fashion-mnist", fashion_mnist._DEBIAN, 0.7), ("fortunes", fortunes._DEBIAN, 0.22)],
)
def test_the_packages_data_can_be_learned(name, folder, reached):
    if not Path(folder).is_dir():
        pytest.skip(f"Debian's package of {name} is not installed")
    torch.set_num_threads(1)
    task = SampledTask(load_task(name))
    torch.manual_seed(0)
    model = task.make_model()
    optimizer = task.make_optimizer(model, 0.02)
    loader = task.load_data(0, 1, 16, "iid", 0)[0]
    for _, batch in zip(range(1200), loader, strict=False):
        task.train_step(model, batch, optimizer)
    assert task.test(model, task.central_data())["accuracy"] > reached
