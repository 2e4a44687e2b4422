"""The user's training and evaluation, one minibatch at a time: with their loop, or their step."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import repeat
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from powerctl.accelerator import BFLOAT16, CPU, FLOAT32, Accelerator
from powerctl.errors import TaskFailed
from powerctl.task.arguments import filled, parameters_of
from powerctl.task.data import Loaders, minibatches_of
from powerctl.task.loading import Task, raised_in
from powerctl.task.loop_thread import PacedLoaders, Turns, end_iterator, iterated
from powerctl.task.randomness import Randomness, seed_loader
from powerctl.task.returned_metrics import metrics_of, number_of
from powerctl.task.watching import (
    LowPrecision,
    Proximal,
    SingleSamples,
    SlowerSteps,
    Watch,
    batch_norms,
)

Self = TypeVar("Self", bound="_Driven")
_END = object()
# what functions are given beside what the run has, by what they do
GIVEN = {
    "train": ("model", "device", "epochs", "loader", "trainloader", "valloader", "testloader"),
    "train_step": ("model", "device", "epochs", "batch", "optimizer"),
    "make_optimizer": ("model", "device", "epochs"),
    "test": ("model", "device", "loader", "testloader", "valloader"),
}
_LOG = logging.getLogger("powerctl")
_MOMENTUM = 0.9  # of the optimizer of a task that makes none, as in most of torch's examples


class Interrupted(Exception):
    """A device runs no more minibatches of this round; the message says why, in a word."""


def make_model(task: Task, given: Mapping[str, Any]) -> nn.Module:
    """A fresh model of a task, where it computes; `TaskFailed` if it makes something else."""
    model = task.call("make_model", given)
    if not isinstance(model, nn.Module):
        raise TaskFailed(
            f"{task.called('make_model')} returned a {type(model).__name__}, expected a "
            "torch.nn.Module"
        )
    return _there(_with_device(given)).place(model)


def _with_device(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the run has, and the device that this process computes on, unless it is another."""
    return {**given} if "device" in given else {"device": Accelerator.here().device, **given}


def _there(given: Mapping[str, Any]) -> Accelerator:
    return Accelerator(str(given["device"]))


def _lower(model: nn.Module, precision: str, given: Mapping[str, Any]) -> LowPrecision | None:
    """What has a model compute in a precision; None where it computes as its weights are."""
    if precision == FLOAT32:
        return None
    there = _there(given)
    if not there.has_bfloat16:
        _LOG.warning("%s has no %s: this trains in float32", there.name, precision)
        return None
    return LowPrecision(model, there.device.type)


def _moving(task: Task, role: str, given: Mapping[str, Any]) -> Callable[[Any], Any] | None:
    """What moves the minibatches of a function that does not ask for the device.

    One that does moves them itself. On the CPU nothing is to be moved.
    """
    there = _there(given)
    if there.name == CPU:
        return None
    names = parameters_of(task.functions[role], task.called(role))
    return None if any(parameter.name == "device" for parameter in names) else there.move


class _Driven:
    """A user's function that works through a loader, one minibatch a step.

    Use it in a `with`: its end ends the user's function, and the workers of their loaders.
    """

    def __init__(self, work: _Loop | _Steps, around: list[Any], *, is_shared: bool = True) -> None:
        self._work = work
        self._around = around
        self._is_shared = is_shared
        self._held = ExitStack()

    def __enter__(self: Self) -> Self:
        if not self._is_shared:
            self._held = self._surrounded()  # until the end
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def minibatches(self) -> int:
        """The number of minibatches that were begun."""
        return self._work.minibatches

    def steps(self) -> Iterator[Callable[[], None]]:
        """Yield a callable that runs the next minibatch, again and again.

        A step raises `Interrupted` where there is no other minibatch, as the user's function has
        come to its end (``finished``), and `TaskFailed` if it raises or never asks for the next.
        """
        return repeat(self._step)

    def close(self) -> None:
        """End the user's function where it waits."""
        with self._surrounded() if self._is_shared else self._held:
            self._work.close()

    def _step(self) -> None:
        try:
            if self._is_shared:
                with self._surrounded():
                    self._work.turn()
            else:
                self._work.turn()
        except Interrupted:
            self._end()
            raise
        self._after()
        if self._work.ended:
            self._end()

    def _surrounded(self) -> ExitStack:
        """All that is to be around a part of the work, entered."""
        with ExitStack() as stack:
            for around in self._around:
                stack.enter_context(around)
            return stack.pop_all()

    def _after(self) -> None:
        """Do what is to be done after each minibatch; subclasses say what."""

    def _end(self) -> None:
        """Do what is to be done when the user's function has ended; subclasses say what."""


class Training(_Driven):
    """The training of a round with the user's own loop or step.

    Parameters
    ----------
    task : Task
        With `train`, the user's whole loop, or `train_step`, one minibatch of it.
    model : nn.Module
        Trained in place.
    loaders : Loaders
        The client's.
    given : mapping of str to object
        What else the run has for the user's arguments: device, lr, partition_id and so on.
    minibatches : int
        So many are planned. A loop is given as many epochs as they are, rounded up.
    seed : int
        Of everything random, see `Randomness`: of run, client and round.
    proximal_mu : float
        FedProx's; 0 for none.
    rate : float
        Factor on the learning rate of whatever optimizer takes the steps.
    precision : {"float32", "bfloat16"}
        Of the model's forward pass, see `LowPrecision`; a device without bfloat16 has float32.
    limit_s : float
        A minibatch that takes longer is given up.
    is_shared : bool
        Whether others run in this process between two turns. If not, the random generators are
        left as they come to be, for the caller to restore.
    inside : context manager, optional
        Around the user's function, in its own thread; of a step there must be a limit.

    Attributes
    ----------
    losses : list of float
        Of each minibatch; NaN where none was seen.
    squares : list of float
        Of each minibatch, the mean of its samples' squared losses, see `sample_losses`.
    returned : dict of str to float
        The numbers that a loop returned which came to its end; empty for others.
    """

    _looks = True  # at the losses

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        loaders: Loaders,
        given: Mapping[str, Any],
        *,
        minibatches: int,
        seed: int,
        proximal_mu: float = 0.0,
        rate: float = 1.0,
        precision: str = FLOAT32,
        limit_s: float = math.inf,
        is_shared: bool = True,
        inside: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.losses: list[float] = []
        self.squares: list[float] = []
        self.returned: dict[str, float] = {}
        self._task = task
        self._model = model
        self._watch = Watch(looks=self._looks)
        self._pull = Proximal(model, proximal_mu) if proximal_mu else None
        given = {"epochs": 1, **_with_device(given), "seed": seed, "model": model}
        self._low = _lower(model, precision, given)
        work: _Loop | _Steps
        if task.has("train"):
            length = minibatches_of(loaders.train)
            if length:
                given["epochs"] = max(1, math.ceil(minibatches / length))
            given |= {"valloader": loaders.validation, "testloader": loaders.test}
            work = _Loop(task, "train", loaders.train, given, limit_s, self._watch.here, inside)
        else:
            work = _Steps(task, model, loaders.train, given, limit_s, self._watch.here, inside)
        seed_loader(loaders.train, seed)
        around: list[Any] = [Randomness(seed, restores=is_shared), self._watch]
        if self._pull is not None:
            around.append(self._pull)
        if rate != 1:
            around.append(SlowerSteps(rate))
        if self._low is not None:
            around.append(self._low)
        if norms := batch_norms(model):
            around.append(SingleSamples(norms))
        super().__init__(work, around, is_shared=is_shared)

    @property
    def loss(self) -> float:
        """Mean training loss: what the user's loop returned as such, else the mean of `losses`."""
        told = [value for key, value in self.returned.items() if key.endswith("loss")]
        if len(told) == 1 and math.isfinite(told[0]):
            return told[0]
        seen = [loss for loss in self.losses if math.isfinite(loss)]
        return float(np.mean(seen)) if seen else math.nan

    def _after(self) -> None:
        seen, square = self._watch.taken()
        told = self._work.loss
        if told is not None:
            seen, square = told, told * told if math.isnan(square) else square
        self.losses.append(seen)
        self.squares.append(square)
        if not math.isfinite(seen):
            self._check_finite(seen)
        if self._pull is not None and self._pull.is_evaded():
            raise TaskFailed(
                f"{self._called}: the weights change without an optimizer of torch.optim; FedProx, "
                "which adds its pull there, cannot be used with it"
            )

        if self._low is not None and not self._low.is_used and math.isfinite(seen):
            raise TaskFailed(
                f"{self._called}: precision {BFLOAT16} is of the model's own forward pass, but the "
                "model is not called: call it, model(...), or leave precision at float32"
            )

    def _end(self) -> None:
        returned = self._work.result
        if not isinstance(returned, Mapping):
            returned = {"loss": returned}
        numbers = {str(key): number_of(value) for key, value in returned.items()}
        self.returned = {key: value for key, value in numbers.items() if value is not None}

    @property
    def _called(self) -> str:
        return self._task.called("train" if self._task.has("train") else "train_step")

    def _check_finite(self, loss: float) -> None:
        """Raise if a loss that is not finite has spoilt the model; some losses of NaN do not."""
        for name, parameter in self._model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise TaskFailed(
                    f"{self._called}: the loss of minibatch {len(self.losses)} is {loss:g}, and "
                    f"the parameter {name!r} is no longer finite: expected finite numbers; try a "
                    "smaller learning rate"
                )


class Evaluation(_Driven):
    """The evaluation of a model with the user's own `test`, one minibatch at a time.

    Parameters
    ----------
    task, model, given, seed, limit_s, is_shared, inside
        As for `Training`.
    loader : iterable
        What is evaluated with.

    Attributes
    ----------
    metrics : dict of str to float
        Empty until `test` has returned.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        loader: Any,
        given: Mapping[str, Any],
        *,
        seed: int,
        limit_s: float = math.inf,
        is_shared: bool = True,
        inside: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.metrics: dict[str, float] = {}
        self._task = task
        given = {**_with_device(given), "seed": seed, "model": model}
        seed_loader(loader, seed)
        work = _Loop(task, "test", loader, given, limit_s, inside=inside)
        super().__init__(work, [Randomness(seed, restores=is_shared)], is_shared=is_shared)

    def run(self) -> dict[str, float]:
        """Evaluate all minibatches without a break, and return the metrics."""
        with self:
            for step in self.steps():
                try:
                    step()
                except Interrupted:
                    break
        return self.metrics

    def _end(self) -> None:
        self.metrics = metrics_of(self._task, self._work.result)


class _Loop:
    """The user's whole loop, which runs in a thread of its own, a minibatch a turn."""

    loss: float | None = None  # is seen from outside

    def __init__(
        self,
        task: Task,
        role: str,
        loader: Any,
        given: Mapping[str, Any],
        limit_s: float,
        begin: Callable[[], None] = lambda: None,
        inside: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._task = task
        self._role = role
        self._begin = begin
        self._inside = inside or nullcontext()
        self._turns = Turns(self._body, task.called(role), limit_s)
        moving = _moving(task, role, given)
        self.pace = PacedLoaders(self._turns.wait, moving)
        # of what a loop validates with, without turns
        self._aside = PacedLoaders(lambda: None, moving)
        if moving is not None:
            both = {name: given.get(name) for name in ("valloader", "testloader")}
            given = {**given, **{k: self._aside.paced(v) for k, v in both.items() if v is not None}}
        names = ("trainloader",) if role == "train" else ("testloader", "valloader")
        paced = self.pace.paced(loader)
        self._given = {**given, **dict.fromkeys(("loader", *names), paced)}

    @property
    def minibatches(self) -> int:
        return self.pace.minibatches

    @property
    def ended(self) -> bool:
        return self._turns.ended

    @property
    def result(self) -> Any:
        return self._turns.result

    def turn(self) -> None:
        before = self.pace.minibatches
        if not self.ended:
            self._turns.take()
        if self.pace.minibatches > before:
            return
        if not before and self._role == "train":
            raise TaskFailed(
                f"{self._task.called(self._role)} ended without a minibatch: expected a loader "
                "that gives some, and a loop over that loader"
            )
        raise Interrupted("finished")

    def close(self) -> None:
        try:
            self._turns.close()
        finally:
            self.pace.close()
            self._aside.close()

    def _body(self) -> Any:
        self._begin()
        with self._inside:
            return self._task.call(self._role, self._given)


class _Steps:
    """The user's step, for one minibatch of their loader after the other."""

    ended = False
    result = None

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        loader: Any,
        given: Mapping[str, Any],
        limit_s: float,
        begin: Callable[[], None],
        inside: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.loss: float | None = None
        self._inside = inside or nullcontext()
        self._task = task
        self._model = model
        self._given = dict(given)
        self._called = task.called("train_step")
        self._loading, self._stepping = raised_in(task.called("load_data")), raised_in(self._called)
        self._begin = begin
        self.minibatches = 0
        self._move = _moving(task, "train_step", given)
        self._loader = iterated(loader, lambda begin, _: begin())  # with workers of its own
        self._epoch: Iterator[Any] = iter(())
        # only a thread of its own can be given up; without a limit none is needed
        self._turns = None if math.isinf(limit_s) else Turns(self._all, self._called, limit_s)

    def turn(self) -> None:
        if self._turns is None:
            self._one()
        elif self._turns.ended:
            raise Interrupted("finished")
        else:
            self._turns.take()

    def close(self) -> None:
        try:
            if self._turns is not None:
                self._turns.close()
        finally:
            end_iterator(self._epoch)

    def _all(self) -> None:
        assert self._turns is not None
        self._begin()
        with self._inside:
            while True:
                self._one()
                self._turns.wait()

    def _one(self) -> None:
        if not self.minibatches:  # in the first turn: what it draws belongs to it
            self._model.train()
            self._given["optimizer"] = self._optimizer()
            self._fill()
        with self._loading:
            batch = self._next()
        if batch is _END:
            raise Interrupted("finished")
        self.minibatches += 1
        for name in self._takes_batch:
            self._named[name] = batch
        with self._stepping:
            returned = self._function(*self._positional, **self._named)
        self.loss = number_of(returned)

    def _fill(self) -> None:
        """The arguments of the step, which are the same for all minibatches but for the batch."""
        here = object()
        self._function = self._task.functions["train_step"]
        given = {**self._given, "batch": here}
        positional, named = filled(
            self._function, self._called, given, self._task.settings, self._task.usual
        )
        if here in positional:
            raise TaskFailed(f"{self._called}: the batch must not be a positional-only parameter")
        self._positional, self._named = positional, named
        self._takes_batch = [name for name, value in named.items() if value is here]

    def _optimizer(self) -> Any:
        if self._task.has("make_optimizer"):
            return self._task.call("make_optimizer", self._given)
        lr = self._given.get("lr", self._task.usual.get("lr"))
        if lr is None:
            raise TaskFailed(
                f"{self._task.where} has no make_optimizer(model), and the run no learning rate"
            )
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        return torch.optim.SGD(parameters, lr=lr, momentum=_MOMENTUM)

    def _next(self) -> Any:
        """The next minibatch, of another epoch if need be; `_END` where there is none in one."""
        batch = next(self._epoch, _END)
        if batch is _END:
            self._epoch = iter(self._loader)
            batch = next(self._epoch, _END)
            if batch is _END and not self.minibatches:
                name = self._task.called("load_data")
                raise TaskFailed(f"{name} returned a loader without minibatches to train with")
        return batch if batch is _END or self._move is None else self._move(batch)
