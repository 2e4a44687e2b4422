"""Counts of models: the published vectors, hand-computed operators, torch's own FLOP counter."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from powerctl.errors import InvalidInput
from powerctl.pagoda.counting import count_model
from powerctl.torchvision_cpu import import_torchvision
from tests.powerctl.pagoda.published import PUBLISHED


def torchvision_model(name: str) -> nn.Module:
    return getattr(import_torchvision().models, name)().to("meta")


def images(batch_size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(batch_size, 3, 224, 224, device="meta", dtype=dtype)


def folded(model: nn.Module) -> nn.Module:
    """Batch norm folded into the convolution before it, as exported graphs have it."""
    children = list(model.named_children())
    for (name, conv), (norm_name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(model, name, fuse_conv_bn_eval(conv, norm))
            setattr(model, norm_name, nn.Identity())
    for _, child in children:
        folded(child)
    return model


@pytest.mark.parametrize(
    ("name", "flop", "weight_bytes", "bytes_per_sample"),
    [
        ("resnet50", 8_206_316_544, 102_011_648, 234_659_744),
        ("mobilenet_v3_large", 449_137_560, 21_805_088, 81_171_584),
    ],
)
def test_the_published_vectors_hold_exactly(name, flop, weight_bytes, bytes_per_sample):
    model = folded(torchvision_model(name).eval())
    for size in (2, 4, 8):
        counts = count_model(model, images(size), convention=PUBLISHED)
        assert counts.flop == flop * size
        assert counts.dram_bytes == weight_bytes + bytes_per_sample * size


def test_a_linear_layer_by_hand_forward_and_backward():
    model, x = nn.Linear(8, 4, bias=False), torch.empty(2, 8)
    forward = count_model(model, x)
    assert forward.flop == 2 * 2 * 8 * 4
    assert forward.dram_bytes == 4 * (2 * 8 + 8 * 4 + 2 * 4)
    assert forward.weight_bytes == 4 * 8 * 4
    trained = count_model(nn.Sequential(nn.Linear(8, 8, bias=False), model), x, training=True)
    gradients = 2 * 2 * 8 * 8 + 2 * 2 * 2 * 8 * 4  # of one weight; of the other and its input
    forwards = 2 * 2 * 8 * 8 + 2 * 2 * 8 * 4
    assert forwards + gradients <= trained.flop < 1.1 * (forwards + gradients)


def test_a_grouped_convolution_costs_a_groups_share():
    x = torch.empty(2, 8, 10, 10)
    full = count_model(nn.Conv2d(8, 8, 3, bias=False), x)
    grouped = count_model(nn.Conv2d(8, 8, 3, groups=4, bias=False), x)
    assert full.flop == 2 * 2 * 8 * 8 * 8 * 9 * 8
    assert grouped.flop == full.flop / 4


class Attention(nn.Module):
    def forward(self, q: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, q, q)


@pytest.mark.parametrize(("batch", "heads"), [(1, 1), (4, 1), (1, 6), (3, 2)])
def test_attention_grows_with_batch_and_heads(batch, heads):
    one = count_model(Attention(), torch.empty(1, 1, 16, 8))
    many = count_model(Attention(), torch.empty(batch, heads, 16, 8))
    assert one.flop >= 2 * 2 * 16 * 16 * 8
    assert many.flop == batch * heads * one.flop


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x * scale


def test_a_broadcast_operand_is_read_at_its_own_size():
    counts = count_model(Scaled(), (torch.empty(10, 100), torch.empty(100)))
    assert counts.flop == 1000
    assert counts.dram_bytes == 4 * (1000 + 100 + 1000)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_halves_the_bytes_and_keeps_the_flop(dtype):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    single = count_model(model, images(2))
    half = count_model(model.to(dtype), images(2, dtype))
    assert half.flop == single.flop
    assert 2 * half.dram_bytes == single.dram_bytes


def flops_of_torch(model: nn.Module, x: torch.Tensor) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(x)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_large", "efficientnet_b0", "regnet_y_400mf", "vit_b_16"]
)
def test_products_agree_with_torchs_own_counter(name):
    model = torchvision_model(name).eval()
    counts = count_model(model, images(2))
    assert not counts.unknown
    products = ("convolution", "mm", "bmm", "linear", "attention")
    ours = sum(op.flop for op in counts.operators if any(p in op.name for p in products))
    # ours count biases and the softmax of attention too
    assert 0 <= ours / flops_of_torch(model, images(2)) - 1 < 0.01


@pytest.mark.parametrize(
    "model",
    [
        nn.LSTM(8, 16, 2, batch_first=True),
        nn.GRU(8, 16, batch_first=True),
        nn.TransformerEncoderLayer(8, 2, 32, batch_first=True),
    ],
    ids=["lstm", "gru", "transformer"],
)
@pytest.mark.parametrize("training", [False, True])
def test_sequence_models_are_known_through_and_through(model, training):
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.inner(x)
            return out[0] if isinstance(out, tuple) else out

    counts = count_model(First(), torch.empty(4, 5, 8), training=training)
    assert counts.flop > 0 and not counts.unknown


def test_training_costs_about_three_forwards_and_the_optimiser_its_own():
    model = torchvision_model("resnet18")
    forward, trained, stepped = (
        count_model(model, images(4)),
        count_model(model, images(4), training=True),
        count_model(model, images(4), training=True, optimiser="sgd-momentum"),
    )
    assert 2.8 < trained.flop / forward.flop < 3.1
    parameters = sum(p.numel() for p in model.parameters())
    assert 3 * parameters <= stepped.flop - trained.flop <= 6 * parameters
    assert stepped.dram_bytes - trained.dram_bytes >= 4 * 5 * parameters


def test_layers_and_operators_add_up_to_the_total():
    counts = count_model(torchvision_model("mobilenet_v3_large"), images(2), training=True)
    for parts in (counts.layers, counts.operators):
        assert sum(part.flop for part in parts) == counts.flop
        assert sum(part.dram_bytes for part in parts) == counts.dram_bytes
        assert sum(part.kernels for part in parts) == counts.kernels


def test_an_operator_without_a_formula_is_named_with_its_share():
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)

    counts = count_model(Odd(), torch.empty(100))
    (unknown,) = counts.unknown
    assert "bessel_j0" in unknown.name
    assert (unknown.calls, unknown.bytes_share) == (1, 1.0)


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_model(model, torch.randn(2, 3, 8, 8), training=True, optimiser="adam")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_contradicting_options_are_refused():
    model, x = nn.Linear(2, 2), torch.empty(1, 2)
    with pytest.raises(InvalidInput, match="training=True"):
        count_model(model, x, optimiser="sgd")
    with pytest.raises(InvalidInput, match="optimiser is one of"):
        count_model(model, x, training=True, optimiser="lion")


class Losses(nn.Module):
    """What detectors, speech and old examples make small; of the operators, no module knows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(6, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f, z = nn.functional, self.layer(x)
        y, k = torch.arange(4) % 5, z.detach().sign()
        return sum(  # type: ignore[return-value]
            [
                f.cross_entropy(z, y),
                f.smooth_l1_loss(z, k),
                f.huber_loss(z, k),
                f.l1_loss(z, k),
                f.kl_div(z.log_softmax(1), k.softmax(1), reduction="batchmean"),
                f.binary_cross_entropy_with_logits(z, k),
                f.binary_cross_entropy(z.sigmoid(), k.abs()),
                f.multi_margin_loss(z, y),
                f.soft_margin_loss(z, k),
                torch.cdist(z, k).mean(),
                f.grid_sample(
                    z[None, None], k[None, :, :4].reshape(1, 2, 4, 2), align_corners=False
                ).mean(),
            ],
            torch.zeros(()),
        )


def test_losses_are_known_operators_forward_and_backward():
    counts = count_model(Losses(), torch.randn(4, 6), training=True, compute=True)
    assert counts.unknown == ()
    names = {operator.name for operator in counts.operators}
    assert {"aten::nll_loss_backward", "aten::smooth_l1_loss_backward"} <= names


def test_a_loss_of_ones_own_is_what_is_trained():
    model, x = nn.Linear(6, 5), torch.empty(4, 6)
    targets = torch.zeros(4, dtype=torch.int64)

    def loss(scores: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(scores, targets)

    plain, own = (count_model(model, x, training=True, loss=f) for f in (None, loss))
    assert own.flop > plain.flop
    assert {o.name for o in own.operators} - {o.name for o in plain.operators} >= {
        "aten::nll_loss_forward",
        "aten::_log_softmax_backward_data",
    }


class Regions(nn.Module):
    """A detector's second stage, by torchvision's operators."""

    def forward(self, x: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        return torch.ops.torchvision.roi_align(x, boxes, 1.0, 7, 7, 2, False)


def test_torchvisions_operators_have_formulas():
    inputs = torch.empty(1, 4, 32, 32), torch.empty(10, 5)
    with torch.library._scoped_library("torchvision", "FRAGMENT") as library:
        if not hasattr(torch.ops.torchvision, "roi_align"):  # a wheel for another torch has none
            library.define(
                "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
                "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor"
            )
            library.impl("roi_align", lambda x, r, *_: x.new_empty(len(r), 4, 7, 7), "Meta")
        counts = count_model(Regions(), inputs)
    assert counts.flop == 10 * 4 * 7 * 7 * 4 * 8
    assert counts.unknown == ()
