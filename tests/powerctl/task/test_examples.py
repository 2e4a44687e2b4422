"""Flower's own examples, their `task.py` unchanged, where a clone of its repository is at hand."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.own_task import compared
from powerctl.task.data import load_data
from powerctl.task.loading import load_task
from powerctl.task.returned_metrics import target_of
from powerctl.task.training import Evaluation
from tests.powerctl.task.conftest import GIVEN
from tests.powerctl.task.local_sources import Rows, modules

COMMIT = "fdef7afb1dca3030553be302366cfd285ed6632c"  # of 29 March 2026
BESIDE = Path(__file__).resolve().parents[4] / ".mirror" / "adap+flower" / "repo"
REPOSITORY = os.environ.get("FLOWER_REPOSITORY", str(BESIDE))
WITH_TRAINER = """
import pytorch_lightning as pl
from task import LitAutoEncoder as make_model, load_data

def trainer(**how):
    return pl.Trainer(enable_progress_bar=False, logger=False, enable_checkpointing=False, **how)

def train(model, trainloader, valloader, epochs):
    fit = trainer(max_epochs=epochs)
    fit.fit(model, trainloader, valloader)
    return {"train_loss": fit.callback_metrics["train_loss"]}

def test(model, testloader):
    return trainer().test(model, testloader, verbose=False)
"""


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Put the `task.py` of an example into a folder, and its data into this process."""

    def make(folder):
        path = f"{COMMIT}:examples/{folder}/task.py"
        told = subprocess.run(["git", "--git-dir", REPOSITORY, "show", path], capture_output=True)
        if told.returncode:
            pytest.skip("no clone of github.com/adap/flower: name one with FLOWER_REPOSITORY")
        (tmp_path / "task.py").write_bytes(told.stdout)
        for name, module in modules(_rows).items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.delitem(sys.modules, "task", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path / "task.py"

    yield make
    sys.modules.pop("task", None)


def _rows(name):
    from PIL import Image

    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if "imdb" in name:
        words = ["good", "bad", "film", "the"]
        return Rows(
            [
                {"text": " ".join(rng.choice(words, rng.integers(2, 9))), "label": int(i % 2)}
                for i in range(80)
            ]
        )
    shape, key = ((32, 32, 3), "img") if "cifar10" in name else ((28, 28), "image")
    pictures = rng.integers(0, 256, (100, *shape), dtype=np.uint8)
    return Rows([{key: Image.fromarray(x), "label": i % 10} for i, x in enumerate(pictures)])


@pytest.mark.parametrize(
    ("folder", "settings"),
    [
        ("quickstart-pytorch/pytorchexample", {}),
        ("embedded-devices/embeddedexample", {"dataset-path": "/data/fashion_mnist_part_1"}),
    ],
)
def test_an_example_in_torch_runs_as_it_is(example, folder, settings):
    settings |= {"learning-rate": 0.1}
    _check(str(example(folder)), settings, "accuracy")


def test_an_example_of_hugging_face_runs_as_it_is(example, tmp_path):
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "the"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "tiny")
    size = {"hidden_size": 8, "intermediate_size": 16, "vocab_size": len(words)}
    config = transformers.BertConfig(**size, num_hidden_layers=1, num_attention_heads=2)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "tiny")
    settings = {"model-name": str(tmp_path / "tiny")}
    _check(str(example("quickstart-huggingface/huggingface_example")), settings, "accuracy")


def test_an_example_in_lightning_runs_with_a_second_file(example, tmp_path):
    pytest.importorskip("pytorch_lightning")
    example("quickstart-pytorch-lightning/pytorchlightning_example")
    assert len(WITH_TRAINER.strip().splitlines()) <= 20
    (tmp_path / "with_trainer.py").write_text(WITH_TRAINER)
    _check(str(tmp_path / "with_trainer.py"), {}, "test_loss")


def _check(text, settings, target):
    """It trains as it does alone, to the last bit, and its test gives its metrics."""
    torch.set_num_threads(1)
    row = compared(text, settings, 3, repeated=1)
    assert (row["minibatches"], row["max_abs_dw"], row["moved"]) == (3, 0, True)
    task = load_task(text, settings)
    loader = load_data(task, GIVEN).test
    metrics = Evaluation(task, task.call("make_model", GIVEN), loader, GIVEN, seed=1).run()
    assert target_of(task, metrics)[0] == target and np.isfinite(list(metrics.values())).all()
