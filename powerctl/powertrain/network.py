"""The paper's predictor: two neural networks, pre-trained on one workload and transferred."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from powerctl.errors import InvalidInput, InvalidTable
from powerctl.measurement import MeasurementTable
from powerctl.modes import AXES, FloatArray, ModeArrays
from powerctl.powertrain.prediction import Prediction

LOSSES = ("mse", "mape")
EPOCH_ENTRIES = 4000

_WIDTHS = (256, 128, 64, 1)
_DROPOUT = (0.4, 0.3, 0.0, 0.0)
_VALIDATION_SHARE = 0.1
_PER_SI = np.array([[1e3], [1.0]])  # the networks' targets: milliseconds, watts
_LEAST = 1e-3  # in the targets' units
_ADAM_EPSILON = 1e-7
_PREDICT_ROWS = 512  # at once, so that activations stay in the cache


class Layer(NamedTuple):
    """A dense layer: `weight` of shape (n_in, n_out), `bias` of shape (n_out,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NetworkWeights:
    """What a `NetworkPredictor` has learned, and what another one starts from.

    Attributes
    ----------
    input_mean, input_scale : FloatArray, shape (4,) or (5,)
        Of the inputs: cores, CPU kHz, GPU Hz, memory Hz and, if learned, the batch size.
    time, power : tuple of Layer
        The four layers of each network; outputs are milliseconds and watts.
    """

    input_mean: FloatArray
    input_scale: FloatArray
    time: tuple[Layer, ...] = field(repr=False)
    power: tuple[Layer, ...] = field(repr=False)


class NetworkPredictor(BaseEstimator):  # type: ignore[misc]
    """PowerTrain's two networks, for time and for power, from a mode's four numbers.

    Dense layers of 256, 128, 64 and 1, ReLU between them, dropout 0.4 and 0.3 after the first two;
    Adam; the weights of the epoch with the least validation loss are kept. Inputs are standardised
    on the training split, targets are milliseconds and watts as they are.

    One mode in ten is set aside for validation. The paper's tables have one row per minibatch,
    about 40 a mode, and so many gradient steps; here a mode is one row, which counts
    `entries_per_mode` times, but not more often than it takes to make an epoch of `EPOCH_ENTRIES`:
    up to 100 modes count 40 times each, a reference table of thousands of modes once.

    Transfer: the layers of `pretrained` but the last are where training starts, the last is fresh,
    and all are trained. Inputs keep the scaling of the pre-trained networks, so that a clock means
    to their layers what it meant before, on another board too. A table with batch sizes has a fifth
    input, for which a network without it gets zero weights.

    Parameters
    ----------
    pretrained : NetworkWeights, optional
        `weights_` of a predictor fitted on a reference workload; None trains from scratch.
    loss : str
        ``"mse"``, or ``"mape"`` as the paper has it for a new device.
    epochs, entries_per_mode, batch_size, learning_rate
        Of the training.
    random_state : int
        Seed of split, initial weights, shuffling and dropout; torch's own state stays untouched.

    Attributes
    ----------
    weights_ : NetworkWeights
        Of the best epoch.
    time_std_, power_std_ : float
        Relative rms error on the validation modes. The method knows no uncertainty of a mode, so
        `predict` returns this for all. It is rough with few modes (with 10 it comes from one), and
        too small, as these modes also chose the epoch: with 10 or 20 modes by half or more.

    Notes
    -----
    The published errors of power are met with targets in milliwatts, which these networks reach
    only slowly; in watts, as here, they are lower, which makes it the stronger baseline.

    References
    ----------
    PowerTrain (FGCS 2024), section 3.
    """

    def __init__(
        self,
        pretrained: NetworkWeights | None = None,
        *,
        loss: str = "mse",
        epochs: int = 100,
        entries_per_mode: int = 40,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        random_state: int = 0,
    ) -> None:
        self.pretrained = pretrained
        self.loss = loss
        self.epochs = epochs
        self.entries_per_mode = entries_per_mode
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, table: MeasurementTable) -> NetworkPredictor:
        """Learn from measured modes.

        Parameters
        ----------
        table : MeasurementTable
            At least two modes, of one workload on one board.

        Returns
        -------
        NetworkPredictor
            This one.

        Raises
        ------
        InvalidInput
            For a parameter out of range, for pre-trained networks that want a batch size which the
            table has not, or if the loss grows beyond all numbers.
        InvalidTable
            For a table with too few rows, or values that are not positive numbers.
        """
        self._check_parameters()
        inputs, targets = _checked(table)
        generator = torch.Generator().manual_seed(self.random_state)
        order = torch.randperm(len(table), generator=generator).numpy()
        n_validation = max(1, round(_VALIDATION_SHARE * len(table)))
        validation, training = order[:n_validation], order[n_validation:]

        mean, scale = self._scaler(inputs[training], table.source)
        networks = _Networks(len(mean), generator)
        if self.pretrained is not None:
            networks.load_inner(self.pretrained)
        x, y = _tensor((inputs - mean) / scale), _tensor(targets)[:, :, None]
        repeats = min(self.entries_per_mode, math.ceil(EPOCH_ENTRIES / len(table)))
        entries = torch.from_numpy(np.tile(training, repeats))
        best = torch.full((2,), math.inf)
        best_values = networks.values.clone()
        adam = torch.optim.Adam([networks.values], lr=self.learning_rate, eps=_ADAM_EPSILON)
        for _ in range(self.epochs):
            self._train_epoch(networks, adam, x, y, entries, generator)
            output = networks.forward(x[validation].expand(2, -1, -1))[-1]
            loss = _losses(self.loss, output, y[:, validation])
            better = loss < best
            best = torch.where(better, loss, best)
            best_values[better] = networks.values[better]
        if not bool(torch.isfinite(best).all()):
            raise InvalidInput(f"{table.source}: training diverges at rate {self.learning_rate:g}")

        networks.values.copy_(best_values)
        self.weights_ = NetworkWeights(mean, scale, networks.layers(0), networks.layers(1))
        found = networks.predict(x[validation])
        errors = found / targets[:, validation] - 1
        self.time_std_, self.power_std_ = np.sqrt(np.mean(errors**2, axis=1)).tolist()
        return self

    def predict(self, modes: ModeArrays, batch_size: ArrayLike | None = None) -> Prediction:
        """Time and power of a minibatch in each mode.

        Parameters
        ----------
        modes : ModeArrays
            Any modes, arrays of one shape.
        batch_size : array_like, optional
            Samples of a minibatch, which broadcast against the modes; needed if the table had
            batch sizes, and only then.

        Returns
        -------
        Prediction
            Of the modes' shape. A network can predict less than nothing; it is cut off at a
            microsecond and a milliwatt. The deviations are `time_std_` and `power_std_` everywhere.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        InvalidInput
            If a batch size is missing, not positive, or was never learned.
        """
        check_is_fitted(self)
        wanted = len(self.weights_.input_mean) > len(AXES)
        if wanted != (batch_size is not None):
            have = "with" if wanted else "without"
            raise InvalidInput(
                f"these networks were trained {have} batch sizes: predict {have} them as well"
            )
        inputs = _inputs(modes, batch_size)
        if not np.all(inputs[:, len(AXES) :] > 0):
            raise InvalidInput(f"batch sizes must be positive, got {batch_size!r}")
        networks = _Networks.of(self.weights_)
        scaled = _tensor((inputs - self.weights_.input_mean) / self.weights_.input_scale)
        shape = np.shape(modes.cores)
        time_s, power_w = networks.predict(scaled) / _PER_SI
        return Prediction(
            time_s=time_s.reshape(shape),
            power_w=power_w.reshape(shape),
            time_std=np.full(shape, self.time_std_),
            power_std=np.full(shape, self.power_std_),
        )

    def _check_parameters(self) -> None:
        if self.loss not in LOSSES:
            raise InvalidInput(f"loss is one of {', '.join(LOSSES)}, not {self.loss!r}")
        for name in ("epochs", "entries_per_mode", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise InvalidInput(f"learning_rate must be positive, got {self.learning_rate}")

    def _scaler(self, inputs: FloatArray, source: str) -> tuple[FloatArray, FloatArray]:
        """Mean and scale of the inputs: of the pre-trained networks as far as they know them.

        An input that never varies is scaled by itself, so that a prediction elsewhere stays sane.
        """
        mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
        scale = np.where(deviation > 1e-9 * mean, deviation, mean)
        if self.pretrained is not None:
            known = len(self.pretrained.input_mean)
            if known > len(mean):
                raise InvalidInput(
                    f"{source} has no batch sizes, but the pretrained networks need them"
                )
            mean[:known], scale[:known] = self.pretrained.input_mean, self.pretrained.input_scale
        return mean, scale

    def _train_epoch(
        self,
        networks: _Networks,
        adam: torch.optim.Optimizer,
        x: Tensor,
        y: Tensor,
        entries: Tensor,
        generator: torch.Generator,
    ) -> None:
        """One pass over the entries, in an order of its own for each network."""
        shuffled = [torch.randperm(len(entries), generator=generator) for _ in range(2)]
        rows = entries[torch.stack(shuffled)]
        inputs = torch.split(x[rows], self.batch_size, dim=1)
        targets = torch.split(y.take_along_dim(rows[:, :, None], dim=1), self.batch_size, dim=1)
        for batch, target in zip(inputs, targets, strict=True):
            activations = networks.forward(batch, generator)
            networks.backward(activations, _loss_slopes(self.loss, activations[-1], target))
            adam.step()


class _Networks:
    """The time and the power network side by side: every array has the two along its first axis.

    All weights and biases are views of `values`, and their gradients of `values.grad`, shape
    (2, n_parameters): so an optimiser's step is a few operations, and a checkpoint one copy.
    Gradients are written out, which takes half the time of autograd at this size.
    """

    def __init__(self, n_inputs: int, generator: torch.Generator | None = None) -> None:
        ins, self._outs = (n_inputs, *_WIDTHS[:-1]), _WIDTHS
        sizes = [size for i, o in zip(ins, self._outs, strict=True) for size in (i * o, o)]
        self.values = torch.zeros(2, sum(sizes), dtype=torch.float32)
        self.values.grad = torch.zeros_like(self.values)
        self._weights, self._biases = self._views(self.values, sizes)
        self._weight_slopes, self._bias_slopes = self._views(self.values.grad, sizes)
        if generator is not None:
            for weight in self._weights:  # Glorot's
                bound = math.sqrt(6 / (weight.shape[1] + weight.shape[2]))
                weight.uniform_(-bound, bound, generator=generator)

    @classmethod
    def of(cls, weights: NetworkWeights) -> _Networks:
        """The networks of given weights."""
        networks = cls(len(weights.input_mean))
        networks._load(weights, len(_WIDTHS))
        return networks

    def load_inner(self, weights: NetworkWeights) -> None:
        """Take over all layers but the last; inputs that they lack get zero weights."""
        self._load(weights, len(_WIDTHS) - 1)

    def layers(self, network: int) -> tuple[Layer, ...]:
        """A copy of the layers of one network."""
        return tuple(
            Layer(weight[network].numpy().copy(), bias[network, 0].numpy().copy())
            for weight, bias in zip(self._weights, self._biases, strict=True)
        )

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """Inputs and outputs of all layers, shape (2, n_rows, width); drops out if it can draw."""
        activations = [x]
        for layer, share in enumerate(_DROPOUT):
            z = torch.baddbmm(self._biases[layer], activations[-1], self._weights[layer])
            if layer < len(_DROPOUT) - 1:
                z.relu_()
            if generator is not None and share > 0:
                keep = torch.rand(z.shape, generator=generator) >= share
                z.mul_(keep).mul_(1 / (1 - share))
            activations.append(z)
        return activations

    def backward(self, activations: list[Tensor], slope: Tensor) -> None:
        """Write the gradient of a loss, given its slope at the outputs and a dropped-out pass."""
        for layer in reversed(range(len(_DROPOUT))):
            x = activations[layer]
            torch.bmm(x.transpose(1, 2), slope, out=self._weight_slopes[layer])
            torch.sum(slope, dim=1, keepdim=True, out=self._bias_slopes[layer])
            if layer > 0:  # x is zero exactly where the ReLU or the dropout stopped it
                slope = torch.bmm(slope, self._weights[layer].transpose(1, 2))
                slope.mul_(x > 0).mul_(1 / (1 - _DROPOUT[layer - 1]))

    def predict(self, x: Tensor) -> FloatArray:
        """Milliseconds and watts, shape (2, n_rows), never below the least."""
        blocks = [
            self.forward(rows.expand(2, -1, -1))[-1] for rows in torch.split(x, _PREDICT_ROWS)
        ]
        output = torch.cat(blocks, dim=1)[:, :, 0]
        return np.maximum(output.numpy().astype(np.float64), _LEAST)

    def _views(self, values: Tensor, sizes: list[int]) -> tuple[list[Tensor], list[Tensor]]:
        parts = torch.split(values, sizes, dim=1)
        weights = [w.view(2, -1, o) for w, o in zip(parts[::2], self._outs, strict=True)]
        return weights, [bias[:, None, :] for bias in parts[1::2]]

    def _load(self, weights: NetworkWeights, n_layers: int) -> None:
        for network, layers in enumerate((weights.time, weights.power)):
            for layer, (weight, bias) in enumerate(layers[:n_layers]):
                self._weights[layer][network].zero_()
                self._weights[layer][network, : len(weight)] = torch.from_numpy(weight)
                self._biases[layer][network, 0] = torch.from_numpy(bias)


def _losses(loss: str, output: Tensor, target: Tensor) -> Tensor:
    """The loss of each network, shape (2,)."""
    error = output - target
    terms = error**2 if loss == "mse" else 100 * (error / target).abs()
    return terms.mean(dim=(1, 2))


def _loss_slopes(loss: str, output: Tensor, target: Tensor) -> Tensor:
    """Derivative of each network's loss by its outputs."""
    error = output - target
    slope = 2 * error if loss == "mse" else 100 * error.sign() / target
    return slope / target.shape[1]


def _checked(table: MeasurementTable) -> tuple[FloatArray, FloatArray]:
    """Inputs (n, 4 or 5) and targets (2, n) of a table that can be learned from."""
    if len(table) < 2:
        raise InvalidTable(
            f"{table.source} has {len(table)} rows: at least 2 are needed, "
            "one to train on and one to validate on; the paper uses 50"
        )
    targets = np.stack([table.time_s, table.power_w]) * _PER_SI
    bad = np.flatnonzero(~np.all(np.isfinite(targets) & (targets > 0), axis=0))
    if len(bad):
        row = int(bad[0])
        raise InvalidTable(
            f"{table.source}, row {row + 2}: {table.time_s[row]} s and {table.power_w[row]} W "
            "are not both positive numbers"
        )
    return _inputs(table.modes, table.batch_size), targets


def _inputs(modes: ModeArrays, batch_size: ArrayLike | None) -> FloatArray:
    columns: list[ArrayLike] = [*modes] if batch_size is None else [*modes, batch_size]
    shape = np.shape(modes.cores)
    return np.stack([np.broadcast_to(c, shape).ravel() for c in columns], axis=1).astype(np.float64)


def _tensor(values: FloatArray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
