"""Doors for model files: archives that carry code, and weights, damaged or with pickled code.

An archive is changed by its members, some of them in words; one of them, which nothing reads, is
pickled code that makes a folder, and may take another's place. What reads archives does it in a
process of its own, which may hang or die, but not run that code.
"""

from __future__ import annotations

import io
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.breaking.files import content_of, tokens
from benchmarks.breaking.trying import Door, Wrong
from powerctl.accelerator import Accelerator
from powerctl.errors import PowerctlError
from wattfed.client.agent.model_files import (
    EXPORT,
    TORCHSCRIPT,
    close_pickle,
    read_program,
    run_module,
)
from wattfed.client.agent.served_models import read_model
from wattfed.client.agent.settings import ModelFile
from wattfed.client.tasks.federated import federated
from wattfed.strategies.run_config import RunConfig

_MARK = "mark"
_WORDS = (".py", ".json", "version", "byteorder", ".data/serialization_id", "archive_format")
_LONGEST_S = 10  # in which a process must have read a model; then it is ended


class _Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (_MARK,)


def doors(_: ExitStack) -> Iterator[Door]:
    """Each format, by its members and as bytes."""
    for name, (data, reads) in examples().items():
        yield Door(name, members_of(data), partial(_read, reads, packed))
        yield Door(f"{name}, bytes", data, partial(_read, reads, content_of))


def examples() -> dict[str, tuple[bytes, Callable[[Path], str]]]:
    """A file of each format, and what the product reads it with."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()).eval()
    script, export, weights = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.script(model), script)
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(
        torch.export.export(model, (torch.zeros(2, 3),), dynamic_shapes=shapes), export
    )
    torch.save(federated(RunConfig(task="digits"), 1).model().state_dict(), weights)
    return {
        "TorchScript": (script.getvalue(), partial(_program, TORCHSCRIPT)),
        "torch.export": (export.getvalue(), partial(_program, EXPORT)),
        "a state dict": (weights.getvalue(), _weights),
    }


def _program(form: str, path: Path) -> str:
    """Read a program in a process of its own, but without its sandbox, that hides what is run."""
    child = os.fork()
    if not child:
        signal.alarm(_LONGEST_S)
        close_pickle()
        with suppress(Exception), path.open("rb") as file:
            program = read_program(file, form, Accelerator.here())
            run_module(program.module, [torch.zeros(2, 3)], Accelerator.here())
            os._exit(0)
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "died" if code < 0 else "refused" if code else "taken"


def _weights(path: Path) -> str:
    """Read weights as the agent does, in its own process."""
    try:
        read_model(ModelFile("weights", str(path), task="digits"))
    except PowerctlError as error:
        if len(str(error)) > 1500 or "\n" in str(error):
            raise Wrong(f"an error that is no short line\n{error!s:.3000}") from error
        return "refused"
    return "taken"


def _read(reads: Callable[[Path], str], encoded: Callable[[Any], bytes], case: Any) -> str:
    """Read a file, and look whether code in it has run."""
    path = Path("model").absolute()
    path.write_bytes(encoded(case))
    try:
        return reads(path)
    finally:
        if Path(_MARK).exists():
            raise Wrong("pickled code has run")


def _evil() -> bytes:
    file = io.BytesIO()
    torch.save((_Evil(),), file)
    with zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return archive.read(name)


def members_of(data: bytes) -> dict[str, Any]:
    """The members of an archive, some in words, and one of pickled code."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[next(iter(members)).partition("/")[0] + "/evil"] = _evil()
    return {
        name: tokens(content) if name.endswith(_WORDS) else content
        for name, content in members.items()
    }


def packed(members: Any) -> bytes:
    """An archive of some members, as torch lays it out: nothing compressed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items() if isinstance(members, dict) else ():
            archive.writestr(str(name).partition("\0")[0] or "_", content_of(content))
    return file.getvalue()
