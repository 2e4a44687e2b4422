"""A user's task on an accelerator, be it written for one or not, learns what it does on the CPU."""

from __future__ import annotations

import pytest
import torch

from powerctl.task.data import load_data
from powerctl.task.loading import load_task
from powerctl.task.randomness import Randomness
from powerctl.task.training import Evaluation, Training, make_model
from tests.powerctl.task.conftest import GIVEN, TASKS, run

ALONE = {key: value for key, value in GIVEN.items() if key != "device"}


def learned(task, place=None):
    """State, losses and metrics of a task that has trained some minibatches somewhere."""
    given = ALONE if place is None else {**ALONE, "device": place}
    with Randomness(1):
        model, loaders = make_model(task, given), load_data(task, given)
    training = run(Training(task, model, loaders, given, minibatches=3, seed=7, proximal_mu=0.1), 3)
    metrics = Evaluation(task, model, loaders.test or loaders.train, given, seed=7).run()
    state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    return state, training.losses, metrics


# `meta` knows no autocast, and nothing can be made on it with numbers, which a detector does
NAMES = sorted({path.stem for path in TASKS.glob("*.py")} - {"amp", "detector"})


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_task_learns_the_same_on_an_accelerator(name, fixture_task, accelerator):
    task = fixture_task(name)
    here, there = learned(task, torch.device("cpu")), learned(task)
    assert accelerator.into
    assert here[0].keys() == there[0].keys() and here[2] == pytest.approx(there[2], nan_ok=True)
    assert there[1] == pytest.approx(here[1], nan_ok=True)
    for key, tensor in here[0].items():
        torch.testing.assert_close(there[0][key], tensor, rtol=1e-6, atol=1e-7)


STEP = "def train_step(model, batch{}): step(batch)"
LOOP = """
    def train(model, loader, valloader{}):
        for batch in (batch for loader in (loader, valloader) for batch in loader):
            step(batch)"""


@pytest.mark.parametrize(("how", "count"), [(STEP, 3), (LOOP, 6)])
@pytest.mark.parametrize(("asks", "place"), [(", device", "cpu"), ("", "meta")])
def test_who_asks_for_the_device_moves_minibatches_and_for_others_it_is_done(
    how, count, asks, place, written, accelerator
):
    text = """
    from torch import nn, zeros
    def make_model(): return nn.Linear(2, 1)
    def load_data(): return ([{"x": zeros(4, 2), "id": ["a"]}] * 3,) * 2
    def step(batch): seen.append(batch["x"].device.type)
    def test(model, loader): seen.extend(b["x"].device.type for b in loader); return 1.0
    seen = []
    """
    task = load_task(written(text + how.format(asks)))
    model, loaders = make_model(task, ALONE), load_data(task, ALONE)
    run(Training(task, model, loaders, ALONE, minibatches=3, seed=7), 3)
    Evaluation(task, model, loaders.test, ALONE, seed=7).run()
    assert task.own.seen == [place] * count + ["meta"] * 3


@pytest.mark.cuda
@pytest.mark.parametrize("name", [*NAMES, "amp", "detector"])
def test_every_kind_of_task_learns_on_a_gpu(name, fixture_task):
    state, losses, _ = learned(fixture_task(name))
    here = learned(fixture_task(name), torch.device("cpu"))
    assert losses == pytest.approx(here[1], rel=0.02, nan_ok=True)
    for key, tensor in here[0].items():
        torch.testing.assert_close(state[key], tensor, rtol=0.05, atol=0.02)


@pytest.mark.cuda
def test_what_others_draw_on_the_gpu_changes_nothing_for_a_task():
    own, others = Randomness(1), Randomness(2)
    drawn = []
    for between in (lambda: None, lambda: torch.rand(3, device="cuda")):
        own = Randomness(1)
        with own:
            first = torch.rand(3, device="cuda")
        with others:
            between()
        with own:
            drawn.append(torch.cat([first, torch.rand(3, device="cuda")]))
    assert torch.equal(*drawn)
