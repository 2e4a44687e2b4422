"""Our SGD gives the bits of torch's own, and loads nothing of its compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from powerctl.task.sgd import MomentumSGD


def learned(make_optimizer, skipped):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    optimizer = make_optimizer(model.parameters())
    for step in range(6):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(7, 1, 8, 8)), torch.arange(7) % 5).backward()
        if step in skipped:
            model[0].bias.grad = None
        if step == 4:
            optimizer.param_groups[0]["lr"] *= 0.5
        optimizer.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("skipped", [(), (0, 3)])
def test_it_learns_the_same_bits_as_torchs_own(skipped):
    ours = learned(lambda p: MomentumSGD(p, 0.05, 0.9), skipped)
    theirs = learned(lambda p: torch.optim.SGD(p, 0.05, momentum=0.9), skipped)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.processes
def test_training_digits_loads_neither_torchs_compiler_nor_scikit_learn():
    code = (
        "import sys\n"
        "from wattfed.client.tasks.federated import federated\n"
        "from wattfed.strategies.run_config import RunConfig\n"
        "task = federated(RunConfig(task='digits'), 16)\n"
        "training = task.training(task.model(), 0, 10, minibatches=2, seed=0)\n"
        "next(training.steps())()\n"
        "print({'torch._dynamo', 'sklearn', 'scipy', 'pandas'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["set()"], done.stdout + done.stderr


def test_the_digits_are_those_of_scikit_learn():
    from sklearn import datasets

    from powerctl.digits import load_digits

    theirs, (images, labels) = datasets.load_digits(), load_digits()
    assert (images == theirs.images).all() and (labels == theirs.target).all()
