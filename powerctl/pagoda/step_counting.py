"""Counting what a user's own training needs: their loop or step, on one minibatch of their loader.

Their code runs as it is, with their loss and their optimizer, on a copy of the model. It runs on
fake tensors, which have no data; where it needs some, it really computes. The same minibatch is
handed out again and again, and what is counted is what runs from one step of the optimizer to the
next, so that gradients which are accumulated over several minibatches count as their mean.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.data import DataLoader

from powerctl.errors import TaskFailed
from powerctl.pagoda.counts import Counts
from powerctl.pagoda.formulas import DRAM
from powerctl.pagoda.operator_counter import (
    MODEL,
    OPTIMISER,
    AsOnGpu,
    OperatorCounter,
    plain_kernels,
)
from powerctl.pagoda.vendor import core_hz
from powerctl.task.data import Loaders, load_data, takes_batch_size
from powerctl.task.loading import Task
from powerctl.task.loop_thread import iterated
from powerctl.task.randomness import Randomness
from powerctl.task.training import Evaluation, Interrupted, Training, make_model

LIMIT_S = 600.0  # for a minibatch that really computes, on a slow host
_ACCUMULATED = 16  # minibatches in which an optimizer is expected to make a step
_TIMED = 5  # minibatches of the loader, and the time for them
_TIMED_S = 2.0
_USUAL_HZ = 2.2e9  # of a core, where Linux does not tell it: that of an AGX Orin


@dataclass(frozen=True)
class StepCounts:
    """What a minibatch of a user's task needs, and what is known of the model beside.

    Attributes
    ----------
    counts : Counts
        Of their own code.
    parameters : int
        Of the model, each shared one once.
    host_cycles_per_sample : float
        Core cycles in which their loader prepares a sample.
    is_computed : bool
        Whether it had to compute, as it needs data.
    """

    counts: Counts
    parameters: int
    host_cycles_per_sample: float
    is_computed: bool


def count_step(
    task: Task, kind: str, given: Mapping[str, Any], limit_s: float = LIMIT_S
) -> StepCounts:
    """Count a minibatch of a task.

    Parameters
    ----------
    task : Task
        The user's.
    kind : {"train", "infer"}
        Whether it trains, or evaluates with its `test`.
    given : mapping
        What its functions are given: ``batch_size``, ``partition_id`` and so on.
    limit_s : float
        Wall-clock seconds that a minibatch may take.

    Raises
    ------
    TaskFailed
        If the user's code fails, also where it really computes.
    """
    given = {**given, "device": torch.device("cpu")}
    with Randomness(0):
        model = make_model(task, given)
        loaders = Loaders(*map(_without_workers, vars(load_data(task, given)).values()))
        loader = loaders.train if kind == "train" else loaders.test
        if loader is None:
            raise TaskFailed(
                f"{task.called('load_data')} returned one loader; to count inference, return a "
                "second one to test with"
            )
        batch, cpu_s = _timed(task, loader)
    size = _size_of(task, loader, batch, given)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with suppress(Exception):  # whatever cannot be done without data
        counts = _counted(task, kind, _stand_in(model, fake), loaders, given, size, limit_s, fake)
        return _found(counts, model, cpu_s / size, is_computed=False)
    counts = _counted(task, kind, model, loaders, given, size, limit_s, None)
    return _found(counts, model, cpu_s / size, is_computed=True)


def _found(counts: Counts, model: nn.Module, sample_s: float, is_computed: bool) -> StepCounts:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return StepCounts(counts, parameters, sample_s * (core_hz() or _USUAL_HZ), is_computed)


def _timed(task: Task, loader: Any) -> tuple[Any, float]:
    """A minibatch of a loader, and the seconds of one core in which it prepares one.

    Time of this thread, which others on the host do not lengthen, and which waiting for a disc is
    no part of. The first minibatch is not timed: it opens files.
    """
    until_s = time.monotonic() + _TIMED_S
    first = None
    took_s: list[float] = []
    while first is None or (len(took_s) < _TIMED and time.monotonic() < until_s):
        batches = iter(loader)
        began_s = time.thread_time()
        seen = 0
        for batch in batches:
            now_s = time.thread_time()
            if first is not None:
                took_s.append(now_s - began_s)
            first = batch if first is None else first
            seen += 1
            if len(took_s) == _TIMED or time.monotonic() > until_s:
                break
            began_s = time.thread_time()
        if not seen:
            raise TaskFailed(
                f"{task.called('load_data')} returned a loader without minibatches to count"
            )
    return first, sorted(took_s)[len(took_s) // 2] if took_s else 0.0


def _without_workers(loader: Any) -> Any:
    """A loader that prepares its minibatches in this thread, where it is seen; None stays None."""
    if not isinstance(loader, DataLoader) or not loader.num_workers:
        return loader
    alone = copy.copy(loader)
    alone._iterator = None
    alone.num_workers, alone.prefetch_factor, alone.timeout = 0, None, 0
    return alone


def _size_of(task: Task, loader: Any, batch: Any, given: Mapping[str, Any]) -> int:
    """Samples of a minibatch: as the task was asked, as its loader says, or as the data are."""
    if takes_batch_size(task):
        return int(given["batch_size"])
    said = getattr(loader, "batch_size", None) or getattr(
        getattr(loader, "batch_sampler", None), "batch_size", None
    )
    if isinstance(said, int):
        return said
    shapes = [leaf.shape for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim]
    return int(shapes[0][0]) or 1 if shapes else 1


def _counted(
    task: Task,
    kind: str,
    model: nn.Module,
    loaders: Loaders,
    given: Mapping[str, Any],
    size: int,
    limit_s: float,
    fake: FakeTensorMode | None,
) -> Counts:
    """Count the minibatches from one step of the optimizer to the next."""
    which = "train" if kind == "train" else "test"
    role = "train_step" if which == "train" and not task.has("train") else which
    weights = [*model.parameters(), *model.buffers()]
    run = _Run(model, OperatorCounter(DRAM, weights, invents_numbers=fake is not None), fake)
    convert = torch.clone if fake is None else fake.from_tensor
    train, *others = (
        None if loader is None else _repeating(loader, convert, endless=name == which)
        for name, loader in vars(loaders).items()
    )
    loaders = Loaders(train, *others)
    more: Any = {"seed": 0, "limit_s": limit_s, "inside": run.inside()}
    work: Training | Evaluation
    if kind == "train":
        work = _Unwatched(task, model, loaders, given, minibatches=_ACCUMULATED + 1, **more)
    else:
        work = Evaluation(task, model, loaders.test, given, **more)
    with work:
        first, last = run.minibatches(work.steps(), 1 if kind == "train" else 0)
    kinds = {name or MODEL: type(module).__name__ for name, module in model.named_modules()}
    kinds[OPTIMISER] = run.optimizer
    launches = run.counter.launches[run.ends[first] : run.ends[last]]
    if not launches:
        raise TaskFailed(f"{task.called(role)} runs no operator of torch: nothing is to be counted")
    return run.counter.counts(kinds, size, minibatches=last - first, launches=launches)


class _Unwatched(Training):
    """A training whose losses nobody looks at: they may have no value, and looking is work too."""

    _looks = False

    def _after(self) -> None:
        pass


class _Run:
    """The user's code as it runs under the counter, minibatch by minibatch.

    Attributes
    ----------
    ends : list of int
        How many operators had run at the beginning, and at the end of each minibatch.
    optimizer : str
        The class of the last that made a step.
    """

    def __init__(
        self, model: nn.Module, counter: OperatorCounter, fake: FakeTensorMode | None
    ) -> None:
        self.counter = counter
        self.ends = [0]
        self.optimizer = ""
        self._model = model
        self._fake = fake
        self._steps = 0
        self._thread = 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What is around the user's function, in its thread."""
        self._thread = threading.get_ident()
        with ExitStack() as stack:
            if self._fake is not None:
                stack.enter_context(self._fake)
            recurrent = any(isinstance(m, nn.RNNBase) for m in self._model.modules())
            stack.enter_context(plain_kernels(onednn=self._fake is None and not recurrent))
            for register, hook in (
                (register_optimizer_step_pre_hook, self._before_step),
                (register_optimizer_step_post_hook, self._after_step),
            ):
                stack.callback(register(hook).remove)
            stack.enter_context(self.counter)
            stack.enter_context(self.counter.layers.of(self._model))
            stack.enter_context(AsOnGpu())
            yield

    def minibatches(self, steps: Iterator[Callable[[], None]], n_steps: int) -> tuple[int, int]:
        """Run as many as are needed, and say after which to count, and up to which.

        The first is never counted, unless there is no other: it makes what stays.
        """
        stepped: list[int] = []
        with suppress(Interrupted):
            while len(stepped) < 2 and len(self.ends) <= _ACCUMULATED:
                before = self._steps
                next(steps)()
                self.ends.append(len(self.counter.launches))
                if self._steps > before or not n_steps:
                    stepped.append(len(self.ends) - 1)
        if len(stepped) == 2:
            return stepped[0], stepped[1]
        last = len(self.ends) - 1
        return min(1, last - 1), last

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if threading.get_ident() != self._thread:  # hooks are the process's
            return
        for group in optimizer.param_groups:  # on a CPU, torch would go parameter by parameter
            if group.get("foreach", True) is None and not group.get("differentiable"):
                group["foreach"] = not group.get("fused")
        self.optimizer = type(optimizer).__name__
        self.counter.layers.outside = OPTIMISER

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if threading.get_ident() == self._thread:
            self._steps += 1
            self.counter.layers.outside = MODEL


def _stand_in(model: nn.Module, fake: FakeTensorMode) -> nn.Module:
    """A copy of a model whose weights have no data; to move it changes nothing."""
    with FakeCopyMode(fake):
        copied = copy.deepcopy(model)

    def check(function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        for tensor in (*copied.parameters(), *copied.buffers()):
            if function(tensor).dtype != tensor.dtype:
                raise NotImplementedError("of a model whose type is changed in its training")
        return copied

    # what `to`, `cuda` and `float` use: torch would swap the tensors, which fake ones refuse
    copied._apply = check  # type: ignore[method-assign]
    return copied


def _repeating(loader: Any, convert: Callable[[Tensor], Tensor], *, endless: bool) -> Any:
    """A loader whose minibatches are all like its first, and whose reading is not counted."""

    def iterate(begin: Callable[[], Iterator[Any]], length: int | None) -> Iterator[Any]:
        with _disable_current_modes():
            first = next(begin())
        for _ in repeat(None) if endless else repeat(None, length or 1):
            with _disable_current_modes():
                batch = tree_map_only(Tensor, convert, first)
            yield batch

    return iterated(loader, iterate)
