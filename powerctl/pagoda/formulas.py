"""The FLOP of every known operator: a multiply-add is two, a bias starts its accumulator.

Activations weigh as Pagoda counts them. What one call needs follows from the shapes of its tensors,
so the same formulas serve forward and backward, and every data type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

from torch import Tensor

from powerctl.pagoda.operators import (
    Call,
    CallCost,
    Flop,
    Rule,
    costs,
    is_free,
    moved,
    n_elements,
    tensors_in,
    traffic_only,
)

SOFTMAX = 7
STATISTICS = 4  # of a norm: sum; centre, square and sum
NORMALISE = 2  # centre and scale
AFFINE = 2  # weight and bias
NORM_BACKWARD = 11  # two sums over the gradient (5), the gradient of the input (6)

# FLOP per element of the result
POINTWISE: Mapping[str, int] = {
    **dict.fromkeys(
        "add sub rsub mul div neg abs sign reciprocal maximum minimum fmod remainder floor ceil "
        "round trunc frac eq ne lt le gt ge where masked_fill exp exp2 expm1 log log2 log10 log1p "
        "sqrt rsqrt sin cos relu threshold threshold_backward floor_divide square logical_not "
        "logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_not isnan isinf "
        "relu_backward nan_to_num tril triu sgn".split(),
        1,
    ),
    **dict.fromkeys(
        "clamp clamp_min clamp_max clip hardtanh hardtanh_backward leaky_relu "
        "leaky_relu_backward hardsigmoid_backward native_dropout native_dropout_backward "
        "_prelu_kernel lerp pow tan atan2 polar complex xlogy".split(),
        2,
    ),
    **dict.fromkeys(
        "addcmul addcdiv sigmoid_backward tanh_backward _prelu_kernel_backward elu glu "
        "mse_loss mse_loss_backward smooth_l1_loss huber_loss smooth_l1_loss_backward "
        "huber_loss_backward multi_margin_loss_backward".split(),
        3,
    ),
    **dict.fromkeys("sigmoid hardsigmoid log_sigmoid_forward softplus elu_backward".split(), 4),
    **dict.fromkeys("tanh hardswish silu hardswish_backward softplus_backward".split(), 5),
    **dict.fromkeys("soft_margin_loss soft_margin_loss_backward".split(), 5),
    "binary_cross_entropy_backward": 6,
    **dict.fromkeys("erf erfc gelu binary_cross_entropy".split(), 8),
    "binary_cross_entropy_with_logits": 9,  # softplus, and what is taken from it
    **dict.fromkeys("silu_backward glu_backward log_sigmoid_backward".split(), 9),
    "mish": 10,
    "gelu_backward": 15,
    "mish_backward": 15,
}

# FLOP per element of the first argument
REDUCTIONS: Mapping[str, int] = {
    **dict.fromkeys(
        "sum mean prod amax amin aminmax max min argmax argmin cumsum cumprod any all nansum "
        "sort topk count_nonzero _embedding_bag _adaptive_avg_pool2d _adaptive_avg_pool3d "
        "adaptive_max_pool2d adaptive_max_pool3d".split(),
        1,
    ),
    **dict.fromkeys("linalg_vector_norm norm mean_backward".split(), 2),
    **dict.fromkeys("logsumexp multi_margin_loss".split(), 3),
    **dict.fromkeys("var std var_mean std_mean _weight_norm_interface".split(), 4),
    **dict.fromkeys("_fused_rms_norm".split(), 4),
    **dict.fromkeys("_weight_norm_interface_backward".split(), 6),
    **dict.fromkeys("_fused_rms_norm_backward".split(), 9),
    **dict.fromkeys("_softmax_backward_data _log_softmax_backward_data".split(), 4),
    **dict.fromkeys("_softmax _log_softmax _safe_softmax".split(), SOFTMAX),
    **dict.fromkeys(  # the first argument is the gradient
        "embedding_dense_backward _embedding_bag_backward _embedding_bag_dense_backward "
        "upsample_nearest1d_backward upsample_nearest2d_backward "
        "upsample_nearest3d_backward".split(),
        1,
    ),
    "upsample_bilinear2d_backward": 8,
    "grid_sampler_2d_backward": 16,
}

# FLOP per element of the gradient; the forward's input is an argument for its shape alone
POOL_BACKWARD: Mapping[str, int] = dict.fromkeys(
    "max_pool2d_with_indices_backward max_pool3d_with_indices_backward "
    "adaptive_max_pool2d_backward adaptive_max_pool3d_backward "
    "_adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward".split(),
    1,
)

# FLOP per element of the result
RESAMPLING: Mapping[str, int] = {
    **dict.fromkeys("upsample_linear1d".split(), 4),
    **dict.fromkeys("upsample_bilinear2d _upsample_bilinear2d_aa grid_sampler_2d".split(), 8),
    **dict.fromkeys("upsample_trilinear3d".split(), 16),
    **dict.fromkeys("upsample_bicubic2d _upsample_bicubic2d_aa".split(), 32),
}

# data moves, nothing is computed
MOVES = (
    "clone copy _to_copy cat stack constant_pad_nd reflection_pad1d reflection_pad2d "
    "replication_pad1d replication_pad2d roll flip repeat select_backward slice_backward "
    "unfold_backward diagonal_backward index_fill fill zero zeros ones full zeros_like ones_like "
    "full_like new_zeros new_ones new_full scalar_tensor arange eye rand randn rand_like "
    "randn_like randint randint_like bernoulli normal uniform random exponential randperm linspace "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d pixel_shuffle pixel_unshuffle "
    "channel_shuffle im2col narrow_copy slice_scatter select_scatter as_strided_scatter "
    "masked_select nonzero one_hot tril_indices triu_indices _pin_memory".split()
)


def per_element(weight: int) -> Flop:
    """FLOP per element of the result; none where only integers take part."""
    return lambda call: weight * n_elements(call.outputs[:1]) if call.floating else 0


def per_listed_element(weight: int) -> Flop:
    """FLOP per element of the first argument's tensors: operators over lists of them."""
    return lambda call: weight * n_elements(call.args[0])


def per_input_element(weight: int) -> Flop:
    """FLOP per element of the first argument."""
    return lambda call: weight * call.tensor(0).numel() if call.floating else 0


def convolution(call: Call) -> int:
    """FLOP of a convolution of any rank, groups and dilation, transposed or not."""
    x, weight = call.tensor(0), call.tensor(1)
    positions = (x if call.get("transposed") else call.out).shape[2:]
    return 2 * x.shape[0] * prod(positions) * weight.numel()


def convolution_backward(call: Call) -> int:
    """FLOP of the gradients asked for: those of input and weight cost a forward pass each."""
    grad, x, weight = (call.tensor(index) for index in range(3))
    to_input, to_weight, to_bias = call.get("output_mask")
    positions = (x if call.get("transposed") else grad).shape[2:]
    products = 2 * x.shape[0] * prod(positions) * weight.numel()
    return int((to_input + to_weight) * products + to_bias * grad.numel())


def product(left: int) -> Flop:
    """FLOP of a matrix product whose left operand is the argument at this position."""
    return lambda call: 2 * call.out.numel() * call.tensor(left).shape[-1]


def attention(call: Call) -> int:
    """FLOP of fused attention: two products and a softmax, of each sample and head."""
    query, key, value = (call.tensor(index) for index in range(3))
    scores = query.shape[:-1].numel() * key.shape[-2]
    return scores * (2 * query.shape[-1] + SOFTMAX + 2 * value.shape[-1])


def attention_backward(call: Call) -> int:
    """FLOP of its backward: the scores again, and two products for each of the forward's."""
    query, key, value = (call.tensor(index) for index in range(1, 4))
    scores = query.shape[:-1].numel() * key.shape[-2]
    return scores * (6 * query.shape[-1] + 2 * SOFTMAX + 4 * value.shape[-1])


def batch_norm(call: Call) -> int:
    """FLOP of batch norm: one scale and one shift per element, and the statistics in training."""
    return call.tensor(0).numel() * (AFFINE + (STATISTICS if _trains(call) else 0))


def layer_norm(call: Call) -> int:
    """FLOP of layer or group norm."""
    affine = AFFINE if call.get("weight") is not None else 0
    return call.tensor(0).numel() * (STATISTICS + NORMALISE + affine)


def max_pool(call: Call) -> int:
    """Comparisons of max pooling, which count as FLOP."""
    window = _window(call.get("kernel_size"), call.out.dim() - 2)
    return call.out.numel() * (window - 1)


def average_pool(call: Call) -> int:
    """Additions and the division of average pooling."""
    return call.out.numel() * _window(call.get("kernel_size"), call.out.dim() - 2)


def average_pool_backward(call: Call) -> int:
    """Additions to the gradient of every window."""
    grad = call.tensor(0)
    return grad.numel() * _window(call.get("kernel_size"), grad.dim() - 2)


def distances(call: Call) -> int:
    """FLOP of the distances of all pairs: of each, the difference, its power and the sum."""
    return 3 * call.out.numel() * call.tensor(0).shape[-1]


def distances_backward(call: Call) -> int:
    """FLOP of their gradient: the differences again, and their share of it."""
    return 4 * call.tensor(0).numel() * call.tensor(1).shape[-1]


def alignments(call: Call) -> int:
    """FLOP of CTC's sums over alignments: of each state, three exponentials and a logarithm."""
    return 7 * call.outputs[1].numel()


def alignments_backward(call: Call) -> int:
    """FLOP of their gradient: the same sums from the end, and their product with the first."""
    return 14 * int(call.get("log_alpha").numel())


def suppression(call: Call) -> int:
    """FLOP of suppressing boxes: of each pair, the area that they share over that of both."""
    return 8 * call.tensor(0).shape[0] ** 2


def regions(pooled: Callable[[Call], Tensor]) -> Flop:
    """FLOP of sampling regions: of each sample, an interpolation between four."""
    return lambda call: 8 * pooled(call).numel() * max(1, call.get("sampling_ratio")) ** 2


def convolution_gradients(call: Call) -> CallCost:
    """The cost of a convolution's backward: each gradient reads what it needs."""
    grad, x, weight = (call.tensor(index) for index in range(3))
    to_input, to_weight, _ = call.get("output_mask")
    needed = (grad, *((weight,) if to_input else ()), *((x,) if to_weight else ()))
    return CallCost(convolution_backward(call), tuple(map(moved, needed)), call.writes())


def batch_normalises(call: Call) -> CallCost:
    """The cost of batch norm, which updates its running statistics unseen by its schema."""
    running = [call.arguments.get("running_mean"), call.arguments.get("running_var")]
    updated = tensors_in(running) if _trains(call) else ()
    return CallCost(batch_norm(call), call.reads(), (*call.writes(), *map(moved, updated)))


def reads_gradient(flop: Flop) -> Rule:
    """The rule of a backward that needs only the shape of the forward's input."""

    def rule(call: Call) -> CallCost:
        x = call.arguments.get("self")
        reads = tuple(t for t in call.reads() if t.tensor is not x)
        return CallCost(flop(call), reads, call.writes())

    return rule


def gathers(call: Call) -> CallCost:
    """The cost of picking elements: what is picked is read, not all that could be."""
    source, *others = call.reads()
    picked = min(source.n_bytes, sum(t.n_bytes for t in call.writes()))
    return CallCost(0, (source._replace(n_bytes=picked), *others), call.writes())


def scatters(call: Call) -> CallCost:
    """The cost of adding or putting values; in place, what they touch is read and written."""
    target, *others = call.reads()
    touched = target.n_bytes
    if call.operator._schema.is_mutable:
        touched = min(touched, max((t.n_bytes for t in others), default=0))
    n_values = touched // call.out.element_size()
    reads = (target._replace(n_bytes=touched), *others)
    return CallCost(n_values, reads, (moved(call.out)._replace(n_bytes=touched),))


def picks_losses(call: Call) -> CallCost:
    """The cost of the losses of right answers: of all scores, one a sample is read."""
    scores, target = call.tensor(0), call.tensor(1)
    picked = moved(scores)._replace(n_bytes=target.numel() * scores.element_size())
    return CallCost(target.numel(), (picked, moved(target)), call.writes())


def _trains(call: Call) -> bool:
    """Whether a batch norm computes its statistics: one variant never does."""
    return bool(call.arguments.get("training"))


def _window(kernel_size: list[int], rank: int) -> int:
    return int(prod(kernel_size) if len(kernel_size) == rank else kernel_size[0] ** rank)


def _rules() -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for name, weight in POINTWISE.items():
        rules[name] = costs(per_element(weight))
        rules[f"_foreach_{name}"] = costs(per_listed_element(weight))
    rules |= {name: costs(per_element(weight)) for name, weight in RESAMPLING.items()}
    rules |= {name: costs(per_input_element(weight)) for name, weight in REDUCTIONS.items()}
    rules |= dict.fromkeys([*MOVES, "_foreach_copy", "_foreach_zero"], traffic_only)
    rules |= dict.fromkeys("embedding gather index index_select take".split(), gathers)
    rules |= dict.fromkeys(
        "index_put index_add scatter scatter_add _index_put_impl".split(), scatters
    )
    formulas: dict[str, Flop] = {
        **dict.fromkeys("convolution _convolution cudnn_convolution".split(), convolution),
        **dict.fromkeys("mm bmm mv dot linear".split(), product(0)),
        **dict.fromkeys("addmm baddbmm addmv".split(), product(1)),
        **dict.fromkeys(_ATTENTION, attention),
        **dict.fromkeys([f"{name}_backward" for name in _ATTENTION], attention_backward),
        **dict.fromkeys("native_layer_norm native_group_norm".split(), layer_norm),
        **dict.fromkeys(
            "native_batch_norm_backward cudnn_batch_norm_backward".split(),
            per_input_element(NORM_BACKWARD),
        ),
        **dict.fromkeys(
            "native_layer_norm_backward native_group_norm_backward".split(),
            per_input_element(NORM_BACKWARD + AFFINE),
        ),
        **dict.fromkeys("max_pool2d_with_indices max_pool3d_with_indices".split(), max_pool),
        **dict.fromkeys("avg_pool2d avg_pool3d".split(), average_pool),
        "_cdist_forward": distances,
        "_cdist_backward": distances_backward,
        "_ctc_loss": alignments,
        "_ctc_loss_backward": alignments_backward,
        "_fused_sgd": per_listed_element(4),
        **dict.fromkeys("_fused_adam _fused_adamw".split(), per_listed_element(12)),
    }
    rules |= {name: costs(flop) for name, flop in formulas.items()}
    rules |= {name: reads_gradient(per_input_element(w)) for name, w in POOL_BACKWARD.items()}
    rules |= dict.fromkeys(
        "avg_pool2d_backward avg_pool3d_backward".split(), reads_gradient(average_pool_backward)
    )
    rules |= dict.fromkeys(_BATCH_NORM, batch_normalises)
    rules["convolution_backward"] = convolution_gradients
    rules |= dict.fromkeys("nll_loss_forward nll_loss2d_forward".split(), picks_losses)
    rules |= dict.fromkeys(  # nearly all that it writes is zero
        "nll_loss_backward nll_loss2d_backward".split(), reads_gradient(lambda call: 0)
    )
    rules["_amp_foreach_non_finite_check_and_unscale"] = costs(per_listed_element(2))
    rules["_amp_update_scale"] = traffic_only
    return {f"aten::{name}": rule for name, rule in rules.items()} | {
        "torchvision::nms": costs(suppression),
        "torchvision::roi_align": costs(regions(lambda call: call.out)),
        "torchvision::_roi_align_backward": costs(regions(lambda call: call.tensor(0))),
    }


_ATTENTION = [
    f"_scaled_dot_product_{kind}_attention" for kind in ("flash", "efficient", "cudnn")
] + ["_scaled_dot_product_flash_attention_for_cpu"]
_BATCH_NORM = (
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "cudnn_batch_norm".split()
)


@dataclass(frozen=True)
class Convention:
    """What operators cost: the rule of each known one by its name, and the rule of all others."""

    rules: Mapping[str, Rule] = field(repr=False)
    otherwise: Rule = field(repr=False)

    def knows(self, call: Call) -> bool:
        """Whether there is a rule for the call, or nothing to charge."""
        return call.name in self.rules or is_free(call.operator)

    def cost(self, call: Call) -> CallCost:
        """The FLOP and the transfers that a call is charged with."""
        rule = self.rules.get(call.name)
        if rule is not None:
            return rule(call)
        return CallCost() if is_free(call.operator) else self.otherwise(call)


DRAM = Convention(_rules(), traffic_only)
