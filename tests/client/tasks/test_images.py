from __future__ import annotations

import pytest
import torch

from powerctl.errors import InvalidInput, UnknownName
from tests.tasks import evaluate, load_task, training_on


@pytest.mark.studies
@pytest.mark.parametrize("name", ["images-cnn", "images-mlp"])
def test_generated_images_can_be_learned_and_noise_makes_it_harder(name):
    torch.set_num_threads(1)
    accuracy = {}
    for noise in (0.5, 3):
        task = load_task(f"{name}(samples=4000, test=500, noise={noise})")
        torch.manual_seed(0)
        model = task.model()
        with training_on(model, task.train_samples(), 32, seed=0) as training:
            steps = training.steps()
            for _ in range(375):
                next(steps)()
        accuracy[noise] = evaluate(model, task.test_samples())["accuracy"]
    assert accuracy[0.5] > 0.85 > 0.7 > accuracy[3] > 0.1


def test_there_are_as_many_as_asked_for_and_always_the_same():
    task = load_task("images-cnn(samples=1000, test=100, labels=4, size=12, seed=3)")
    train, test = task.train_samples(), task.test_samples()
    assert train.inputs.shape == (1000, 1, 12, 12) and len(test) == 100
    assert torch.bincount(train.labels).tolist() == [250] * 4
    assert task.model()(test.inputs).shape == (100, 4)
    again = load_task("images-cnn(samples=1000, test=100, labels=4, size=12, seed=3)")
    assert torch.equal(again.train_samples().inputs, train.inputs)
    other = load_task("images-cnn(samples=1000, test=100, labels=4, size=12, seed=4)")
    assert not torch.equal(other.train_samples().inputs, train.inputs)


def test_a_parameter_that_cannot_be_is_named():
    with pytest.raises(UnknownName, match="unknown parameter of images-cnn 'sample'"):
        load_task("images-cnn(sample=3)")
    with pytest.raises(InvalidInput, match="even and at least 4, got 7"):
        load_task("images-mlp(size=7)")
    with pytest.raises(InvalidInput, match="digits takes no parameters"):
        load_task("digits(size=7)")
