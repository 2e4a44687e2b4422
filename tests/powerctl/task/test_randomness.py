from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from powerctl.task.randomness import Randomness, seed_loader


def draw():
    return random.random(), np.random.normal(), np.random.rand(), float(torch.rand(()))


def test_what_is_drawn_depends_on_the_seed_and_not_on_what_others_draw():
    def drawn(seed, others):
        mine, own = [], Randomness(seed)
        for _ in range(5):  # an odd number of normal ones, of which NumPy keeps every second
            with own:
                mine.append(draw())
            for _ in range(others):
                draw()
        return mine

    assert drawn(3, others=0) == drawn(3, others=2) != drawn(4, others=0)


def test_others_draw_as_if_nothing_had_been_between():
    def drawn(between):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        others = [draw()]
        own = Randomness(5)
        for _ in range(3):
            if between:
                with own:
                    draw()
            others.append(draw())
        return others

    assert drawn(between=True) == drawn(between=False)


def test_it_draws_what_the_libraries_draw_from_that_seed():
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    expected = [draw() for _ in range(400)]
    own = Randomness(9)
    drawn = []
    for _ in range(400):
        with own:
            drawn.append(draw())
    assert drawn == expected


def test_a_seed_may_be_of_any_size():
    with Randomness(2**80 + 3):
        first = draw()
    with Randomness(2**80 + 3):
        assert draw() == first


def test_a_loader_with_a_generator_of_its_own_forgets_how_often_it_was_used():
    loader = DataLoader(range(50), shuffle=True, generator=torch.Generator())
    orders = []
    for _ in range(2):
        seed_loader(loader, 4)
        orders.append(torch.cat(list(loader)).tolist())
    assert orders[0] == orders[1] != sorted(orders[0])


class Augmented(Dataset):
    def __init__(self):
        self.rng = np.random.default_rng()
        self.old, self.plain = np.random.RandomState(), random.Random()
        self.transform = SimpleNamespace(generator=torch.Generator())

    def __len__(self):
        return 4

    def __getitem__(self, i):
        drawn = torch.rand((), generator=self.transform.generator)
        return self.rng.normal(), self.old.normal(), self.plain.random(), float(drawn)


def test_generators_of_a_data_set_are_seeded_wherever_it_is_wrapped():
    loader = DataLoader(ConcatDataset([Subset(Augmented(), [0, 1]), Augmented()]), 2)

    def drawn(seed):
        seed_loader(loader, seed)
        return torch.cat([torch.stack(batch) for batch in loader])

    assert torch.equal(drawn(3), drawn(3)) and not torch.equal(drawn(3), drawn(4))


def test_without_restoring_a_piece_of_work_is_seeded_all_the_same():
    with Randomness(5):
        expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    others = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with Randomness(0), Randomness(5, restores=False):
        assert draw() == expected
    assert draw() == others
