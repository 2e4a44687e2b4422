from __future__ import annotations

from dataclasses import replace

import pytest

from powerctl.characterization.findings import findings
from powerctl.characterization.plan import Cell

BASE = Cell()
NONE = Cell(workers=0)
TWO = Cell(workers=2)


def said(study, decided=True):
    return [each.text for each in findings(study) if each.decided == decided]


def test_an_effect_that_is_there_is_said_with_its_interval(made):
    (cut,) = [t for t in said(made({BASE: (0.8, 5.0), NONE: (10.0, 5.0)})) if "stall" in t]
    assert cut.startswith("Workers 0 → 4 cut fetch stalls by 9")
    assert "95 % CI" in cut
    assert "cut epochs by 6" in cut
    assert "cut energy by 6" in cut


def test_noise_alone_is_never_said_to_be_an_effect(made):
    cells = [replace(BASE, workers=w) for w in (0, 1, 2, 4)]
    cells += [replace(BASE, storage="packed")]
    for seed in range(20):
        study = made(dict.fromkeys([BASE, *cells], (5.0, 5.0)), noise=0.1, seed=seed)
        assert not [t for t in said(study) if "cut" in t or "raise" in t], seed


def test_what_is_not_decided_is_left_open(made):
    study = made({BASE: (5.0, 5.0), NONE: (5.5, 5.0)}, noise=0.2)
    assert not said(study)
    assert "not decided" in said(study, decided=False)[0]


def test_one_repetition_decides_nothing(made):
    study = made({BASE: (0.8, 5.0), NONE: (10.0, 5.0)}, repetitions=1)
    assert not said(study)
    assert said(study, decided=False) == ["Workers 0 → 4: intervals need at least 2 repetitions."]


def test_workers_that_gain_nothing_more_are_named(made):
    study = made({BASE: (0.1, 5.0), TWO: (0.1, 5.0), NONE: (10.0, 5.0)}, noise=0.002)
    assert [t for t in said(study) if t.startswith("Workers 2 → 4 shorten epochs by less than 5 %")]


def test_workers_that_cost_more_than_they_save_are_said_to(made):
    study = made({BASE: (3.0, 5.0), TWO: (0.1, 5.0), NONE: (10.0, 5.0)}, noise=0.002)
    assert [t for t in said(study) if t.startswith("Workers 2 → 4 raise epochs by 5")]


def test_a_disc_that_is_slow_once_matters_in_the_first_epoch_only(made):
    slow = replace(BASE, storage="hdd")
    study = made({BASE: (0.5, 5.0, 0.5), slow: (0.5, 5.0, 20.0)}, noise=0.002)
    texts = said(study)
    assert texts[0].startswith("Storage matters in the first epoch only: files → hdd raise")
    assert texts[1].startswith("The first epoch, from a cold cache, waits 39.9 times as long")


def test_the_batch_size_that_saturates_is_named(made):
    sizes = {4: 10.0, 16: 4.0, 64: 3.95}
    cells = {replace(BASE, batch_size=n): (0.1, s) for n, s in sizes.items()}
    study = made(cells, noise=0.002, baseline=replace(BASE, batch_size=16))
    (text,) = said(study)
    assert text.startswith("Batch 16 saturates")


def test_a_batch_size_that_still_gains_does_not_saturate(made):
    sizes = {4: 10.0, 16: 4.0, 64: 1.5}
    cells = {replace(BASE, batch_size=n): (0.1, s) for n, s in sizes.items()}
    study = made(cells, noise=0.002, baseline=replace(BASE, batch_size=16))
    assert said(study)[0].startswith("Batch 64 does not saturate")


def modes_of(made, **seconds):
    cells = {replace(BASE, mode=name): (0.1, s) for name, s in seconds.items()}
    modes = {"MAXN": "12c", "default": "8c", "MODE_30W": "8c"}
    return said(made(cells, noise=0.001, modes=modes, baseline=next(iter(cells))))


def test_maxn_is_the_fastest_only_if_no_mode_is_faster(made):
    texts = modes_of(made, MAXN=5.0, MODE_30W=8.0, slower=9.0)
    assert "MAXN is the fastest of the 3 modes." in texts
    texts = modes_of(made, MAXN=5.0, MODE_30W=8.0, other=4.5)
    assert [t for t in texts if t.startswith("MAXN is not the fastest: other takes 9")]


def test_a_default_mode_that_another_beats_in_both_is_not_on_the_front(made):
    texts = modes_of(made, MAXN=5.0, MODE_30W=8.0)
    assert [t for t in texts if t.startswith("The default mode MODE_30W is not on the front")]
    texts = modes_of(made, MAXN=9.0, MODE_30W=8.0)
    assert "The default mode MODE_30W is on the front of time and energy of these." in texts


def test_findings_of_a_grid_say_with_what(made):
    cells = {BASE: (0.8, 5.0), NONE: (10.0, 5.0)}
    cells |= {replace(cell, batch_size=64): (s / 2, c) for cell, (s, c) in cells.items()}
    texts = said(made(cells, noise=0.002))
    assert [t for t in texts if t.startswith("With batch 64: workers 0 → 4 cut fetch stalls")]


@pytest.mark.parametrize(
    ("on", "off", "start"), [(6.0, 5.0, "Observing lengthens"), (5.0, 5.0, "Observing changes")]
)
def test_the_observers_own_cost_is_said(made, on, off, start):
    cells = {BASE: (0.1, on), replace(BASE, observer=False): (0.1, off)}
    assert said(made(cells, noise=0.001))[0].startswith(start)
