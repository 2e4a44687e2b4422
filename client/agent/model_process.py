"""The process of one model: it closes a sandbox around itself, reads a file, answers batches.

Run by `model_host` as ``python -m wattfed.client.agent.model_process``, with its options as
JSON. What torch loads at first use, it loads for a model of our own before the sandbox is closed:
afterwards nothing can be opened.
"""

from __future__ import annotations

import ctypes
import fcntl
import io
import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Any

from wattfed.client.agent import sandbox

if TYPE_CHECKING:
    from wattfed.client.agent.exchange import Exchange
    from wattfed.client.agent.model_files import Program


def main() -> None:
    """Serve a model until the agent closes the channel."""
    options = json.loads(sys.argv[1])
    _end_with_the_agent(options["life"])
    if options["sandbox"]:
        sandbox.begin()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.tempdir = "/"  # asked for, and never used
    from wattfed.client.agent.exchange import Exchange

    exchange = Exchange(options["channel"])
    with suppress(EOFError):
        try:
            program = _read(options)
        except Exception as error:  # torch raises many kinds for a file that is none of its own
            exchange.send({"error": str(error).strip().partition("\n")[0][:1000]})
            return
        inputs = [[str(dtype), *shape] for shape, dtype in program.inputs]
        exchange.send({"inputs": inputs, "fixed_batch": program.fixed_batch})
        exchange.map(options["memory"], exchange.receive()["size"])
        _answer(exchange, program)


def _end_with_the_agent(life: int) -> None:
    """Be killed when a pipe's other end is closed, even in the midst of a batch."""
    if hasattr(fcntl, "F_SETSIG"):  # Linux; elsewhere only between batches
        fcntl.fcntl(life, fcntl.F_SETSIG, SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, fcntl.F_SETFL, os.O_ASYNC)


def _read(options: dict[str, Any]) -> Program:
    import torch

    from powerctl.accelerator import Accelerator
    from wattfed.client.agent.model_files import close_pickle, read_program

    torch.set_num_threads(options["threads"])
    accelerator = Accelerator.here()
    form = options["format"]
    read_program(_ours(form), form, accelerator).module(accelerator.move(torch.zeros(2, 3, 8, 8)))
    close_pickle()
    if accelerator.is_gpu:
        torch.special.erfcx(accelerator.move(torch.ones(1)))  # compiled where it runs, by NVRTC
        load_siblings(Path("/proc/self/maps").read_text())
    file = open(options["model"], "rb")  # noqa: SIM115
    if options["sandbox"]:
        writes_to = (options["channel"], 1, 2)
        sandbox.close(writes_to, options["memory_bytes"], gpu=accelerator.is_gpu)
    else:
        sandbox.limit(options["memory_bytes"])
    return read_program(file, form, accelerator)


def load_siblings(maps: str) -> None:
    """Load the libraries that CUDA's would open at first use: ``libcudnn_ops`` of ``libcudnn``.

    Parameters
    ----------
    maps : str
        The memory of this process, as /proc/self/maps has it.
    """
    loaded = {Path(line.split(maxsplit=5)[5]) for line in maps.splitlines() if ".so" in line}
    for library in loaded:
        stem = library.name.partition(".")[0]
        if stem.startswith(("libcu", "libnv", "libtorch_cuda")):
            for sibling in {path.resolve() for path in library.parent.glob(f"{stem}[_-]*.so*")}:
                with suppress(OSError):  # of another release, say: what needs it says so
                    ctypes.CDLL(str(sibling))


def _ours(form: str) -> io.BytesIO:
    """A file of a format, with a model that takes images."""
    import torch

    from wattfed.client.agent.model_files import EXPORT

    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    ).eval()
    file = io.BytesIO()
    if form == EXPORT:
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(model, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=shapes)
        torch.export.save(program, file)
    else:
        torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    return file


def _answer(exchange: Exchange, program: Program) -> None:
    """Run batches until there are no more."""
    from powerctl.accelerator import Accelerator
    from wattfed.client.agent.model_files import run_module

    accelerator = Accelerator.here()
    while True:
        request = exchange.receive()
        try:
            batch, end = exchange.get(request["tensors"])
            outputs, _ = exchange.put(run_module(program.module, batch, accelerator), end)
            exchange.send({"tensors": outputs})
        except Exception as error:  # whatever the model's code raises
            lines = str(error).strip().splitlines() or [type(error).__name__]
            exchange.send({"error": lines[-1][:1000]})


if __name__ == "__main__":
    main()
    os._exit(0)
