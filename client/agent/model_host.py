"""Models in processes of their own: started, asked, and ended when they hang or break."""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.quantities import spoken
from powerctl.reading import in_line
from wattfed.client.agent import sandbox
from wattfed.client.agent.engine_jobs import Broken
from wattfed.client.agent.exchange import Exchange
from wattfed.client.agent.settings import ModelFile
from wattfed.client.agent.tensors import InputSpec, spec_of

_OUTPUT_BYTES = 256 << 20  # room for a batch's outputs; pages that nobody touches cost nothing
_EXIT_S = 1.0  # in which a process has ended that has closed its channel
_LONGEST_REASON = 300  # characters of what a model says of itself


class ModelFailed(RuntimeError):
    """A model's code has raised, in its own process."""


class ModelHost(ABC):
    """Where a model's module lives: here, unless a subclass has it elsewhere.

    Attributes
    ----------
    isolation : str
        For people: in the agent, or apart from it and how.
    broken : str
        Why it answers no more; empty while it does.
    limit_s : float
        The longest that the next batch may last; 0 where nothing ends it.
    """

    isolation: str = "agent"
    broken: str = ""
    limit_s: float = 0.0

    @abstractmethod
    def run(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs of a batch, with memory of their own."""

    def close(self) -> None:  # noqa: B027 - nothing to do for what lives here
        """Serve the model no more."""


@dataclass
class Hosting:
    """What models that carry code may take, and their processes.

    Attributes
    ----------
    load_s, batch_s : float
        The longest that reading it, with a first batch, and that a batch may last.
    memory_bytes : int
        Beside what torch takes; 0: half of the machine's.
    unsafe : bool
        Whether it runs without a sandbox.
    """

    load_s: float = 120.0
    batch_s: float = 10.0
    memory_bytes: int = 0
    unsafe: bool = False

    def __post_init__(self) -> None:
        self._processes: set[ModelProcess] = set()
        self._changing = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """End all processes, also those that load, and start no more."""
        with self._changing:
            self._closed = True
            there = list(self._processes)
        for process in there:
            process.close()

    def add(self, process: ModelProcess) -> None:
        """Take a process in; it is ended at once if all are."""
        with self._changing:
            self._processes.add(process)
            closed = self._closed
        if closed:
            process.close()

    def discard(self, process: ModelProcess) -> None:
        """Forget a process that has ended."""
        with self._changing:
            self._processes.discard(process)

    @property
    def isolation(self) -> str:
        """In what such a model runs, for people.

        Raises
        ------
        DeviceUnavailable
            If there is no sandbox, and none is demanded.
        """
        if self.unsafe:
            return "process, no sandbox"
        if why := sandbox.lack():
            raise DeviceUnavailable(
                f"its format carries code, and there is no sandbox for it ({why}); serve its "
                "weights with task=TASK, or trust it with --allow-unsafe-models"
            )
        return "sandbox"

    @property
    def most_bytes(self) -> int:
        """Of memory, as a number."""
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return self.memory_bytes or there // 2


class ModelProcess(ModelHost):
    """A model in a process of its own; any thread may close it, one at a time asks it.

    Parameters
    ----------
    file : ModelFile
    form : str
        Format of the file, by which the process reads it.
    hosting : Hosting

    Attributes
    ----------
    inputs : tuple of InputSpec
        As the file has them; empty if it does not say.
    fixed_batch : int or None
    """

    def __init__(self, file: ModelFile, form: str, hosting: Hosting) -> None:
        self.isolation = hosting.isolation
        self.limit_s = hosting.load_s  # the first batch is part of loading
        self._hosting = hosting
        self._name = file.name
        self._using = threading.Lock()
        self._memory = _memory_file()
        self._channel, theirs = socket.socketpair()
        life, self._life = os.pipe()
        with theirs, open(file.path, "rb") as model:
            passed = (theirs.fileno(), model.fileno(), self._memory, life)
            options = {
                **dict(zip(("channel", "model", "memory", "life"), passed, strict=True)),
                "format": form,
                "threads": torch.get_num_threads(),
                "memory_bytes": hosting.most_bytes,
                "sandbox": not hosting.unsafe,
            }
            self._process = subprocess.Popen(
                [sys.executable, "-m", "wattfed.client.agent.model_process", json.dumps(options)],
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            os.close(life)
        self._exchange = Exchange(self._channel.fileno())
        hosting.add(self)

    def read(self, given: Sequence[InputSpec], largest_batch: int) -> None:
        """Wait until the file is read.

        Parameters
        ----------
        given : sequence of InputSpec
            The inputs, where the file does not say them.
        largest_batch : int
            That is going to be asked.

        Raises
        ------
        InvalidInput
            If it is no model.
        Broken
            If the process hangs or has ended.
        """
        with self._using, self._making_sense():
            if self.broken:
                raise Broken(self.broken)
            loaded = self._receive("read")
            inputs = (spec_of(*head) for head in loaded["inputs"])
            self.inputs = tuple(inputs) or tuple(given)
            fixed = loaded["fixed_batch"]
            self.fixed_batch = None if fixed is None else max(1, int(fixed))
            size = _OUTPUT_BYTES + (self.fixed_batch or largest_batch) * sum(
                math.prod(spec.shape) * spec.dtype.itemsize + 64 for spec in self.inputs
            )
            os.ftruncate(self._memory, size)
            if hasattr(fcntl, "F_ADD_SEALS"):  # it may not be taken away from under the agent
                fcntl.fcntl(
                    self._memory,
                    fcntl.F_ADD_SEALS,
                    fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL,
                )
            self._exchange.map(self._memory, size)
            self._exchange.send({"size": size})

    def run(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs of a batch, with memory of their own.

        Raises
        ------
        ModelFailed
            If the model's code raises; the process goes on.
        Broken
            If the process hangs, has ended, or talks nonsense: it is ended.
        """
        with self._using:
            if self.broken:
                raise Broken(self.broken)
            heads, end = self._exchange.put(batch)
            with self._making_sense():
                self._exchange.send({"tensors": heads})
                try:
                    reply = self._receive("answered")
                except InvalidInput as error:
                    raise ModelFailed(str(error)) from None
                outputs, _ = self._exchange.get(reply["tensors"], end)
                self.limit_s = min(self.limit_s, self._hosting.batch_s)
                return [output.clone() for output in outputs]

    def close(self) -> None:
        """End the process; a batch that it runs is lost."""
        self.broken = self.broken or f"model {self._name} has been ended"
        self._process.kill()
        with self._using:
            self._process.wait()
            self._channel.close()
            if self._life >= 0:
                os.close(self._life)
                os.close(self._memory)
                self._life = -1
        self._hosting.discard(self)

    @contextmanager
    def _making_sense(self) -> Iterator[None]:
        """End the process if its messages are not what was asked for."""
        try:
            yield
        except (InvalidInput, ModelFailed, Broken):
            raise
        except (EOFError, ConnectionError):  # it may have gone before or after it was asked
            raise self._end("") from None
        except Exception as error:  # whatever a message gone wrong leads to
            raise self._end(f"made no sense ({error!r:.100})") from None

    def _receive(self, done: str) -> dict[str, Any]:
        """The process's next message; raises `InvalidInput` with what it says is wrong."""
        try:
            message = self._exchange.receive(self.limit_s)
        except TimeoutError:
            raise self._end(f"has not {done} within {spoken(self.limit_s, 's')}") from None
        if "error" in message:
            raise InvalidInput(in_line(message["error"], _LONGEST_REASON) or "it does not say why")
        return message

    def _end(self, why: str) -> Broken:
        """Kill the process; why it is broken."""
        if not why:  # it ends by itself, unless it has only closed the channel
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_S)
        self._process.kill()
        status = self._process.wait()
        if not why:
            killed = f"was killed by {signal.Signals(-status).name}" if status < 0 else "ended"
            why = f"{killed} before it had answered"
        self.broken = self.broken or f"model {self._name} is broken: its process {why}"
        return Broken(self.broken)


def _memory_file() -> int:
    """A file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("batches", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
