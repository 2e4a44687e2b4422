"""Models of every kind of array travel and come back as they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from torch import nn

from powerctl.errors import InvalidInput
from wattfed.client.worker.model_arrays import (
    array_record_of,
    arrays_of,
    load_arrays,
    load_file,
    parameter_names,
)


class Odd(nn.Module):
    """Tied, frozen, complex and half-precision weights; buffers of every kind."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(5, 4)
        self.decode = nn.Linear(4, 5, bias=False)
        self.decode.weight = self.embed.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.brain = nn.Linear(4, 3).to(torch.bfloat16)
        self.short = nn.Parameter(torch.randn(2).half())
        self.wave = nn.Parameter(torch.randn(3, dtype=torch.complex64))
        self.scale = nn.Parameter(torch.tensor(float(seed)))
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("index", torch.tensor([[0, 2], [1, seed]]))
        self.register_buffer("mask", torch.tensor([True, bool(seed)]))
        self.register_buffer("bytes", torch.tensor([seed, 255], dtype=torch.uint8))
        self.register_buffer("none", torch.zeros(0, 2))


def same(one: nn.Module, two: nn.Module) -> bool:
    ours, theirs = one.state_dict(), two.state_dict()
    return list(ours) == list(theirs) and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name])
        for name in ours
    )


def test_every_array_comes_back_as_it_was():
    one, two, three = Odd(1), Odd(2), Odd(3)
    assert not same(one, two)
    load_arrays(two, arrays_of(one))
    load_arrays(three, array_record_of(one))
    assert same(one, two) and same(one, three)
    assert two.decode.weight is two.embed.weight


def test_what_numpy_lacks_is_carried_by_what_it_has():
    arrays = arrays_of(Odd())
    assert arrays["brain.weight"].dtype == arrays["short"].dtype == np.float32
    assert (arrays["wave"].dtype, arrays["wave"].shape) == (np.float32, (3, 2))
    assert arrays["scale"].shape == () and arrays["none"].shape == (0, 2)
    assert arrays["mask"].dtype == np.bool_ and arrays["bytes"].dtype == np.uint8
    assert isinstance(array_record_of(Odd()), ArrayRecord) and list(array_record_of(Odd())) == list(
        arrays
    )


def test_arrays_are_copies():
    model = Odd()
    arrays = arrays_of(model)
    before = arrays["scale"].copy(), arrays["brain.weight"].copy()
    with torch.no_grad():
        model.scale += 1
        model.brain.weight += 1
    np.testing.assert_array_equal(arrays["scale"], before[0])
    np.testing.assert_array_equal(arrays["brain.weight"], before[1])
    load_arrays(model, arrays)
    arrays["index"][...] = 9
    assert model.index.max() < 9


def test_parameters_are_told_by_the_model_and_tied_ones_by_each_name():
    names = parameter_names(Odd())
    assert {"embed.weight", "decode.weight", "frozen.weight", "wave", "norm.weight"} <= names
    buffers = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert set(arrays_of(Odd())) - names == buffers | {"index", "mask", "bytes", "none"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("short"), "there is no array 'short'"),
        (lambda a: a.update(more=np.zeros(1)), "the model has no array 'more'"),
        (lambda a: a.update(short=np.zeros(3)), r"'short' is float64 of shape \(3,\)"),
        (lambda a: a.update(index=np.zeros((2, 2))), "'index' is float64"),
        (lambda a: a.update(mask=np.zeros(2, dtype=int)), "'mask' is int64"),
        (lambda a: a.update(short=np.array(["a", "b"])), "'short' is <U1"),
    ],
)
def test_arrays_of_another_model_are_refused_by_name(change, message):
    model, arrays = Odd(1), arrays_of(Odd())
    change(arrays)
    with pytest.raises(InvalidInput, match=message) as raised:
        load_arrays(model, arrays)
    assert "\n" not in str(raised.value) and same(model, Odd(1))


def test_a_state_that_is_no_array_is_named():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"steps": 1}

    with pytest.raises(InvalidInput, match="'_extra_state' in the model's state is no plain array"):
        arrays_of(Extra(2, 2))


@pytest.mark.parametrize(
    "saved",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"ema": {"x": torch.ones(1)}, "state_dict": state, "loss": torch.ones(1)},
    ],
)
def test_a_model_starts_from_a_checkpoint(tmp_path, saved):
    torch.save(saved(Odd(1).state_dict()), tmp_path / "model.pt")
    model = Odd(2)
    load_file(model, tmp_path / "model.pt")
    assert same(model, Odd(1))


class Planted:
    """What only a pickle that runs code can bring."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "not a checkpoint"),
        (b"PK\x03\x04 and nothing else", "not a checkpoint"),
        (b"hello, this is text", "torch.save has not written it"),
        (Odd(), "it holds a whole model, or other code; save it with torch.save"),
        ({"model": Planted()}, "not a checkpoint of weights alone"),
        (torch.ones(3), "neither a state dict nor a dict that holds one"),
        ({}, "neither a state dict"),
        ({"epoch": 3}, "neither a state dict"),
        ({"x": torch.ones(1)}, "of another model"),
        ({**Odd().state_dict(), "short": torch.tensor([1.0, torch.nan])}, "'short' is not finite"),
        ({**Odd().state_dict(), "short": torch.eye(2).to_sparse()}, "model.pt: "),
    ],
)
def test_what_is_no_checkpoint_of_it_is_said_in_one_line(tmp_path, content, message):
    path = tmp_path / "model.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InvalidInput, match=message) as raised:
        load_file(Odd(), path)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)
