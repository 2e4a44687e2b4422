"""What benchmarks of inference beside training have in common: sharing with nobody giving turns.

Native sharing: both run at will, in two threads or two processes, and the system (on a GPU, the
driver) shares the device; or in two threads with a CUDA stream each. What waits is dispatched as
one batch, full or not.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from powerctl.accelerator import Accelerator
from powerctl.errors import DeviceUnavailable, UnknownName

MODES = ("managed", "native-threads", "native-processes", "native-streams")
_WARMUPS = 5  # of training: memory is taken and kernels are chosen in the first
_END_S = 10.0
_LOOK_S = 0.1
_KEEP = {-1: 2**31 - 1, -4: 0, -8: 1}  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX


def modes_of(text: str, accelerator: Accelerator) -> list[str]:
    """The modes that a text names; ``all`` are those that there can be without a GPU, or with."""
    if text == "all":
        return list(MODES if accelerator.is_gpu else MODES[:-1])
    for name in text.split(","):
        if name not in MODES:
            raise UnknownName("mode", name, MODES)
    if "native-streams" in text and not accelerator.is_gpu:
        raise DeviceUnavailable(
            f"native-streams shares a GPU by CUDA streams, and this runs on {accelerator.name} "
            f"(torch {torch.__version__}); leave that mode out"
        )
    return text.split(",")


def prepare_process() -> None:
    """One thread of torch's, and what is freed is kept, as torch keeps a GPU's memory.

    By itself glibc gives large tensors back to the system, in some threads more than in others:
    a minibatch faults its pages in anew, and takes longer in a turn than alone.
    """
    torch.set_num_threads(1)
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for option, value in _KEEP.items():
            mallopt(option, value)


@contextmanager
def on_stream(accelerator: Accelerator, stream: Any) -> Iterator[None]:
    """Work on a stream of the GPU, or with None on the default one; ends when that has ended."""
    if not accelerator.is_gpu:
        yield
        return
    with torch.cuda.device(accelerator.device), torch.cuda.stream(stream):
        yield
        torch.cuda.current_stream().synchronize()


def new_stream(accelerator: Accelerator, own: bool) -> Any:
    """A CUDA stream, if one is wanted."""
    return torch.cuda.Stream(accelerator.device) if own else None  # type: ignore[no-untyped-call]


class Training(Protocol):
    """What makes training; it is sent to the process that trains."""

    def training(self, *, own_stream: bool = False) -> Callable[[], None]:
        """What runs one minibatch, to its end; on a CUDA stream of its own if it is to."""
        ...


@dataclass
class Control:
    """How a worker is told to stop, and tells that it is ready, and what it has done."""

    done: Any = field(default_factory=ctypes.c_longlong)
    stop: Any = field(default_factory=threading.Event)
    ready: Any = field(default_factory=threading.Event)

    @classmethod
    def between_processes(cls) -> Control:
        """One that another process shares; without a lock, which a killed process would keep."""
        spawn = multiprocessing.get_context("spawn")
        return cls(spawn.Value("q", 0, lock=False), spawn.Event(), spawn.Event())


class Worker(AbstractContextManager["Worker"]):
    """A thread or a process that works from when it is ready until the block ends.

    Parameters
    ----------
    work : callable
        Called with the control and the arguments; returns once it is told to stop.
    arguments : sequence
    own_process : bool
        Whether it is a process, spawned, as one that has used CUDA cannot be forked; it is killed
        if it does not end.
    limit_s : float
        Within which it must be ready, on a machine that does much else.
    """

    def __init__(
        self,
        work: Callable[..., None],
        *arguments: Any,
        own_process: bool,
        control: Control | None = None,
        limit_s: float = 600.0,
    ) -> None:
        self._control = control or (Control.between_processes() if own_process else Control())
        make: Any = (
            multiprocessing.get_context("spawn").Process if own_process else threading.Thread
        )
        self._runner = make(target=work, args=(self._control, *arguments), daemon=True)
        self._limit_s = limit_s

    def __enter__(self) -> Worker:
        self._runner.start()
        give_up_s = time.monotonic() + self._limit_s
        while not self._control.ready.wait(_LOOK_S):
            alive = self._runner.is_alive()
            if not alive or time.monotonic() > give_up_s:
                self._end()
                what = f"was not ready within {self._limit_s:.0f} s" if alive else "has failed"
                raise DeviceUnavailable(f"what was to work beside {what}; see above")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        worked = self._runner.is_alive()
        self._end()
        worked = worked and not getattr(self._runner, "exitcode", 0)
        if not worked and kind is None:
            raise DeviceUnavailable("what worked beside has failed; see above")

    def _end(self) -> None:
        self._control.stop.set()
        self._runner.join(_END_S)
        if self._runner.is_alive() and not isinstance(self._runner, threading.Thread):
            self._runner.kill()
            self._runner.join()

    @property
    def done(self) -> int:
        """Minibatches so far."""
        return int(self._control.done.value)


def train(control: Control, work: Training, own_stream: bool = False) -> None:
    """Train at will until told to stop; for a `Worker`."""
    prepare_process()
    minibatch = work.training(own_stream=own_stream)
    for _ in range(_WARMUPS):
        minibatch()
    control.ready.set()
    while not control.stop.is_set():
        minibatch()
        control.done.value += 1


@dataclass(frozen=True)
class Request:
    """One that waits to be served, with what it brings."""

    arrived_s: float
    inputs: Sequence[torch.Tensor] = ()
    answer: Callable[[Any], None] = lambda _: None


def batches(
    waiting: queue.Queue[Request | None], size: int, patience_s: float
) -> Iterator[list[Request]]:
    """Batches of what waits, at most so large, until None comes.

    None is dispatched later than so many seconds after its first request arrived.
    """
    while (first := waiting.get()) is not None:
        batch, give_up_s = [first], first.arrived_s + patience_s
        while len(batch) < size:
            try:
                one = waiting.get(timeout=max(0.0, give_up_s - time.perf_counter()))
            except queue.Empty:
                break
            if one is None:
                waiting.put(None)
                break
            batch.append(one)
        yield batch


def seen(requests: int, latencies_s: Sequence[float], budget_s: float) -> dict[str, Any]:
    """Of a row: what requests saw, by the latencies of those that were answered."""
    known_s = np.array(latencies_s or [np.nan])
    return {
        "requests": requests,
        "answered": len(latencies_s),
        "within_budget_pct": 100 * float(np.sum(known_s <= budget_s)) / max(requests, 1),
        "latency_p50_ms": 1e3 * float(np.percentile(known_s, 50)),
        "latency_p99_ms": 1e3 * float(np.percentile(known_s, 99)),
        "latency_max_ms": 1e3 * float(known_s.max()),
    }
