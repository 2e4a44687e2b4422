"""Studies made by hand, and small real ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from powerctl.characterization.results import Epoch, Result
from powerctl.characterization.study import Study
from powerctl.characterization.tasks import Classifier
from powerctl.task.loading import load_task

SAMPLES = 160


class SlowSamples(Dataset):
    """Samples whose loading sleeps, as a slow disc or decoder would."""

    def __init__(self, count=24, sleep=lambda: None):
        self.count, self.sleep = count, sleep

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.sleep()
        return torch.full((4,), float(index)), index % 2


class SlowLinear(nn.Linear):
    """A model whose forward pass sleeps."""

    def __init__(self, sleep=lambda: None):
        super().__init__(4, 2)
        self.sleep = sleep

    def forward(self, inputs):
        self.sleep()
        return super().forward(inputs)


@pytest.fixture
def task():
    """Make a task whose loading and computing sleep."""

    def make(load=lambda: None, compute=lambda: None, count=24):
        samples, model = SlowSamples(count, load), SlowLinear(compute)
        return load_task(Classifier("slow", lambda: model, lambda storage: samples, ("",)))

    return make


@pytest.fixture
def made():
    """Make a study from means: configurations with their seconds of stall and compute an epoch."""

    def make(cells, *, noise=0.01, repetitions=4, baseline=None, modes=None, power_w=10.0, seed=0):
        rng = np.random.default_rng(seed)
        results = []
        for configuration, (stall_s, compute_s, *first) in cells.items():
            for repetition in range(repetitions):
                stalls = [*(first or [stall_s]), stall_s, stall_s]
                epochs = tuple(epoch(s, compute_s, power_w, rng, noise) for s in stalls)
                results.append(Result(configuration, repetition, epochs, 1.0))
        return Study(results, baseline or next(iter(cells)), modes or {})

    return make


def epoch(stall_s, compute_s, power_w, rng, noise):
    stall_s, compute_s, power_w = (
        value * float(np.exp(noise * rng.standard_normal()))
        for value in (stall_s, compute_s, power_w)
    )
    return Epoch(
        seconds=stall_s + compute_s,
        stall_s=stall_s,
        start_s=0.0,
        compute_s=compute_s,
        samples=SAMPLES,
        minibatches=10,
        energy_j=power_w * (stall_s + compute_s),
    )
