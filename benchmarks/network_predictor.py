"""The paper's predictor: two neural networks, pre-trained on one workload and transferred."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from powerctl.errors import InvalidInput, InvalidTable
from powerctl.measurement import MeasurementTable
from powerctl.modes import AXES, FloatArray, IntArray, ModeArrays
from powerctl.powertrain.prediction import Prediction

LOSSES = ("mse", "mape")
EPOCH_ENTRIES = 40_000

_VALIDATION_SHARE = 0.1
_TARGETS_PER_SI = 1e3  # milliseconds, milliwatts
_LEAST_TARGET = 1e-3


@dataclass(frozen=True, eq=False)
class Networks:
    """What a `NetworkPredictor` has learned, and what another one starts from.

    Attributes
    ----------
    input_mean, input_scale : FloatArray, shape (4,) or (5,)
        Of the inputs: cores, CPU kHz, GPU Hz, memory Hz and, if learned, the batch size.
    time, power : nn.Sequential
        From scaled inputs to milliseconds and to milliwatts.
    """

    input_mean: FloatArray
    input_scale: FloatArray
    time: nn.Sequential = field(repr=False)
    power: nn.Sequential = field(repr=False)

    @torch.no_grad()
    def targets(self, inputs: FloatArray) -> FloatArray:
        """Milliseconds and milliwatts, shape (2, n), of inputs of shape (n, 4 or 5).

        A network can predict less than nothing; it is cut off at a microsecond and a microwatt.
        """
        x = _tensor((inputs - self.input_mean) / self.input_scale)
        outputs = torch.stack([self.time(x)[:, 0], self.power(x)[:, 0]])
        return np.maximum(outputs.numpy().astype(np.float64), _LEAST_TARGET)


class NetworkPredictor(BaseEstimator):  # type: ignore[misc]
    """PowerTrain's two networks, for time and for power, from a mode's four numbers.

    Dense layers of 256, 128, 64 and 1, ReLU between them, dropout 0.4 and 0.3 after the first two;
    Adam; the weights of the epoch with the least validation loss are kept. Inputs are standardised
    on the training split, targets are milliseconds and milliwatts as they are.

    One mode in ten is set aside for validation. The paper's tables have one row per minibatch,
    about 40 a mode, and so many gradient steps; here a mode is one row, which counts
    `entries_per_mode` times, but not more often than it takes to make an epoch of `EPOCH_ENTRIES`:
    up to 1,000 modes count 40 times each, the 4,368 of a reference 10 times, which is enough.

    Transfer: all layers of `pretrained` but the last are where training starts, the last is fresh,
    and all are trained. Inputs keep the scaling of the pre-trained networks, so that a clock means
    to their layers what it meant before, on another board too. A table with batch sizes has a fifth
    input, for which networks without it get zero weights.

    Parameters
    ----------
    pretrained : Networks, optional
        `networks_` of a predictor fitted on a reference workload; None trains from scratch.
    loss : str
        ``"mse"``, or ``"mape"`` as the paper has it for a new device.
    epochs, entries_per_mode, batch_size, learning_rate
        Of the training.
    random_state : int
        Seed of split, initial weights, shuffling and dropout; torch's own state stays untouched.

    Attributes
    ----------
    networks_ : Networks
        Of the best epoch.
    time_std_, power_std_ : float
        Relative rms error on the validation modes. The method knows no uncertainty of a mode, so
        `predict` returns this for all. It is rough with few modes (with 10 it comes from one), and
        too small, as these modes also chose the epoch.

    Notes
    -----
    In milliwatts, power is 10 % off for the first 80,000 steps or so. From few modes it stays so,
    as published; a reference takes this many, and minutes. Watts would need far fewer.
    Published errors of time are 1 to 5 points higher: of networks that saw single minibatches,
    which vary, where these see their means.

    References
    ----------
    PowerTrain (FGCS 2024), section 3.
    """

    def __init__(
        self,
        pretrained: Networks | None = None,
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            order = torch.randperm(len(table)).numpy()
            n_validation = max(1, round(_VALIDATION_SHARE * len(table)))
            validation, training = order[:n_validation], order[n_validation:]
            repeats = min(self.entries_per_mode, math.ceil(EPOCH_ENTRIES / len(table)))
            entries = torch.from_numpy(np.tile(training, repeats))

            mean, scale = self._scaler(inputs[training], table.source)
            x, y = _tensor((inputs - mean) / scale), _tensor(targets)[:, :, None]
            time, power = self._initial(len(mean))
            self.networks_ = Networks(
                mean,
                scale,
                self._trained(time, x, y[0], entries, validation),
                self._trained(power, x, y[1], entries, validation),
            )
        errors = self.networks_.targets(inputs[validation]) / targets[:, validation] - 1
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
            Of the modes' shape. The deviations are `time_std_` and `power_std_` everywhere.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        InvalidInput
            If a batch size is missing, not positive, or was never learned.
        """
        check_is_fitted(self)
        wanted = len(self.networks_.input_mean) > len(AXES)
        if wanted != (batch_size is not None):
            have = "with" if wanted else "without"
            raise InvalidInput(
                f"these networks were trained {have} batch sizes: predict {have} them as well"
            )
        inputs = _inputs(modes, batch_size)
        if not np.all(inputs[:, len(AXES) :] > 0):
            raise InvalidInput(f"batch sizes must be positive, got {batch_size!r}")
        shape = np.shape(modes.cores)
        time_s, power_w = self.networks_.targets(inputs) / _TARGETS_PER_SI
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

    def _initial(self, n_inputs: int) -> tuple[nn.Sequential, nn.Sequential]:
        """The networks of time and power before training: of pre-trained ones, the inner layers."""
        time, power = _fresh(n_inputs), _fresh(n_inputs)
        if self.pretrained is not None:
            for new, old in ((time, self.pretrained.time), (power, self.pretrained.power)):
                inner = old[:-1].state_dict()
                lacking = n_inputs - inner["0.weight"].shape[1]
                inner["0.weight"] = nn.functional.pad(inner["0.weight"], (0, lacking))
                new[:-1].load_state_dict(inner)
        return time, power

    def _trained(
        self, network: nn.Sequential, x: Tensor, y: Tensor, entries: Tensor, validation: IntArray
    ) -> nn.Sequential:
        """The network as it was after its best epoch."""
        adam = torch.optim.Adam(network.parameters(), lr=self.learning_rate, fused=True)
        least, best = math.inf, network
        for _ in range(self.epochs):
            network.train()
            for batch in torch.split(entries[torch.randperm(len(entries))], self.batch_size):
                adam.zero_grad()
                torch.autograd.backward(self._loss(network(x[batch]), y[batch]))
                adam.step()
            network.eval()
            with torch.no_grad():
                loss = float(self._loss(network(x[validation]), y[validation]))
            if loss < least:
                least, best = loss, copy.deepcopy(network)
        if least == math.inf:
            raise InvalidInput(f"training diverges at learning_rate {self.learning_rate:g}")
        return best

    def _loss(self, output: Tensor, target: Tensor) -> Tensor:
        error = output - target
        return (error**2).mean() if self.loss == "mse" else 100 * (error / target).abs().mean()


def _fresh(n_inputs: int) -> nn.Sequential:
    return nn.Sequential(
        *(_dense(n_inputs, 256), nn.ReLU(), nn.Dropout(0.4)),
        *(_dense(256, 128), nn.ReLU(), nn.Dropout(0.3)),
        *(_dense(128, 64), nn.ReLU()),
        _dense(64, 1),
    )


def _dense(n_inputs: int, n_outputs: int) -> nn.Linear:
    """A layer with Glorot's initial weights."""
    layer = nn.Linear(n_inputs, n_outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _checked(table: MeasurementTable) -> tuple[FloatArray, FloatArray]:
    """Inputs (n, 4 or 5) and targets (2, n) of a table that can be learned from."""
    if len(table) < 2:
        raise InvalidTable(
            f"{table.source} has {len(table)} rows: at least 2 are needed, "
            "one to train on and one to validate on; the paper uses 50"
        )
    targets = np.stack([table.time_s, table.power_w]) * _TARGETS_PER_SI
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
