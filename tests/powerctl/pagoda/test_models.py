"""Models by name: what is built, what they take, and what goes wrong."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from powerctl.errors import InvalidInput, UnknownName
from powerctl.pagoda.counting import count_model
from powerctl.pagoda.models import load_model, model_names, parse_input
from tests.powerctl.pagoda.published import PUBLISHED


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Write a module into the current directory; gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = "a_persons_own_models"
    monkeypatch.delitem(sys.modules, name, raising=False)

    def write(text):
        (tmp_path / f"{name}.py").write_text("import torch\nfrom torch import nn\n" + text)
        return name

    yield write
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet18", 11.69),
        ("resnet50", 25.56),
        ("mobilenetv3", 5.48),
        ("efficientnet_b0", 5.29),
        ("vit_b_16", 86.57),
        ("lstm", 8.58),
        ("bert-base", 109.48),
        ("bert-large", 335.14),
        ("torchvision:regnet_y_400mf", 4.34),  # cannot be built on the meta device
    ],
)
def test_a_model_has_its_published_parameters_and_no_memory(name, millions):
    model = load_model(name)
    assert model.name == name
    assert model.parameters / 1e6 == pytest.approx(millions, abs=0.01)
    assert all(parameter.is_meta for parameter in model.module.parameters())


@pytest.mark.parametrize("name", model_names())
def test_every_built_in_model_is_counted_through_and_through(name):
    model = load_model(name)
    counts = count_model(model.module, model.inputs(2))
    assert counts.flop > 0 and counts.batch_size == 2 and not counts.unknown


def test_bert_large_has_the_published_counts():
    """Its weights exactly; its FLOP and bytes nearly.

    PyTorch's graph is not the exported one that was counted. Missing in FLOP (0.064 %): PyTorch's
    softmax of masked rows is an operator that the published rules do not know, biases are part of
    a linear layer, and layer norms are one operator instead of nine. In bytes (0.97 % more) copies
    of the packed query, key and value outweigh what those lack.
    """
    model = load_model("bert-large")
    with sdpa_kernel(SDPBackend.MATH):  # products of attention one by one, as they are exported
        counts = count_model(model.module, model.inputs(1), convention=PUBLISHED)
    assert counts.weight_bytes == 1_213_726_720
    assert counts.flop == pytest.approx(79_136_298_142, rel=1e-3)
    assert counts.dram_bytes == pytest.approx(1_213_726_720 + 1_387_284_352, rel=0.01)


@pytest.mark.parametrize("name", ["bert-base", "resnet50"])
def test_products_agree_with_torchs_own_counter(name):
    model = load_model(name)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.module.eval()(*model.inputs(2))
    counts = count_model(model.module, model.inputs(2))
    products = ("convolution", "mm", "attention")
    ours = sum(op.flop for op in counts.operators if any(p in op.name for p in products))
    # ours count biases and the softmax of attention too
    assert 0 <= ours / counter.get_total_flops() - 1 < 0.01


def test_the_decoder_of_the_language_model_shares_the_embeddings_weights():
    module = load_model("lstm").module
    assert module.decoder.weight is module.embedding.weight


@pytest.mark.parametrize(
    ("text", "shape", "dtype"),
    [
        ("3,32,32", (3, 32, 32), torch.float32),
        ("128:int64", (128,), torch.int64),
        (" 1, 28, 28:bfloat16 ", (1, 28, 28), torch.bfloat16),
    ],
)
def test_an_input_is_a_samples_shape_and_type(text, shape, dtype):
    (sample,) = parse_input(text)
    assert (sample.shape, sample.dtype) == (shape, dtype)
    assert parse_input(str(sample)) == (sample,)
    assert sample.batch(4).shape == (4, *shape)


def test_several_inputs_are_several_arguments(own_module):
    name = own_module("def make():\n    return nn.Bilinear(4, 5, 6)\n")
    model = load_model(f"{name}:make", "4; 5")
    assert count_model(model.module, model.inputs(3)).batch_size == 3


@pytest.mark.parametrize("text", ["", "3,0,3", "3x32x32", "-1", "3,,4", ":int64"])
def test_an_input_that_is_no_shape_is_refused_with_an_example(text):
    with pytest.raises(InvalidInput, match="such as 3,224,224 or 128:int64"):
        parse_input(text)


def test_an_unknown_type_of_input_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'float32'"):
        parse_input("3,224,224:float23")


def test_a_given_input_replaces_the_usual_one_and_its_type_is_the_models():
    small = load_model("resnet18", "3,64,64:float16")
    (images,) = small.inputs(2)
    assert images.shape == (2, 3, 64, 64)
    assert {p.dtype for p in small.module.parameters()} == {torch.float16}
    assert count_model(small.module, images).flop > 0


def test_a_persons_own_model_is_found_beside_them(own_module):
    name = own_module("def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5))\n")
    model = load_model(f"{name}:make", "3,4")
    assert count_model(model.module, model.inputs(2)).weight_bytes == 4 * (12 * 5 + 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no attribute 'make'"),
        ("def make(width):\n    pass", "TypeError: make.. missing 1 required"),
        ("make = 3", "not callable"),
        ("def make():\n    return 3", "returned a int, not a torch.nn.Module"),
        ("def make():\n    return nn.Linear(1, 2 // 0)", "ZeroDivisionError.*models.py:4"),
        ("import not_there_at_all", "No module named 'not_there_at_all' .*models.py:3"),
    ],
)
def test_what_is_wrong_with_a_persons_own_model_is_said(own_module, text, message):
    name = own_module(text + "\n")
    with pytest.raises(InvalidInput, match=message):
        load_model(f"{name}:make", "3")


def test_a_persons_own_model_needs_its_input():
    with pytest.raises(InvalidInput, match="--input 3,224,224"):
        load_model("some.module:make")


def test_unknown_models_are_refused_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'resnet50'"):
        load_model("resnet55")
    with pytest.raises(UnknownName, match="did you mean 'convnext_tiny'"):
        load_model("torchvision:convnext_tine")
    with pytest.raises(InvalidInput, match="no module no_such_module"):
        load_model("no_such_module:make", "3")


def test_without_torchvision_it_says_what_to_install(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InvalidInput, match=r"pip install 'powerctl\[vision\]'"):
        load_model("resnet18")
