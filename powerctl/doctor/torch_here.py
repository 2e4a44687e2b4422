"""Which torch this Python has, whether it suits the board, and what to do if it does not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from powerctl.jetson.discovery import Missing
from powerctl.reading import read_toml


@dataclass(frozen=True)
class TorchHere:
    """The torch of the Python that runs this, as it told of itself in another process.

    Attributes
    ----------
    version, file
        Of torch; None if it is not installed or cannot be imported.
    cuda : str or None
        The CUDA that it was built for.
    gpu : str or None
        The GPU that it sees.
    torchvision : str or None
        The version beside it.
    missing : tuple of Missing
        What does not suit, and what mends it.
    """

    version: str | None
    file: str | None
    cuda: str | None
    gpu: str | None
    torchvision: str | None
    missing: tuple[Missing, ...]


def look_at_torch(jetpack: str | None, limit_s: float = 120.0) -> TorchHere:
    """Look at the torch of this Python, on a board of a JetPack, or on another machine.

    It is imported in a process of its own, so that nothing is loaded here and a crash is told;
    from a cold SD card that takes tens of seconds.
    """
    known = read_toml(resources.files("powerctl.doctor") / "torch.toml")
    remedies = known["remedies"]
    remedy = remedies.get((jetpack or "").partition(".")[0], remedies["other"])
    says, errors = _ask(limit_s)
    faults = _faults(says, errors, known, on_jetson=jetpack is not None)
    return TorchHere(
        version=says.get("torch"),
        file=says.get("file"),
        cuda=says.get("cuda"),
        gpu=says.get("gpu"),
        torchvision=says.get("torchvision"),
        missing=tuple(Missing(what, mends or remedy) for what, mends in faults),
    )


def _ask(limit_s: float) -> tuple[dict[str, str | None], dict[str, str]]:
    """The answers of the other process, and its errors, by question."""
    questions = str(Path(__file__).with_name("torch_asked.py"))
    try:
        done = subprocess.run(
            [sys.executable, questions], capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return {}, {"torch": f"its import takes more than {limit_s:g} s"}
    if done.returncode:
        return {}, {"torch": f"its import ends the process with {done.returncode}"}
    says, errors = json.loads(done.stdout.splitlines()[-1])
    return says, errors


def _faults(
    says: dict[str, str | None], errors: dict[str, str], known: dict[str, Any], *, on_jetson: bool
) -> Iterator[tuple[str, str]]:
    """What does not suit, and its remedy where that is not the torch of the JetPack."""
    version, vision = says.get("torch"), says.get("torchvision")
    if version is None:
        why = errors.get("torch", f"it is not installed for {sys.executable}")
        yield f"nothing can be counted or trained with torch: {why}", ""
        return
    if _number(version) < _number(known["oldest"]):
        yield f"torch {version} is older than {known['oldest']}, which wattfed needs", ""
    if on_jetson and says["cuda"] is None:
        yield f"torch {version} was built without CUDA", ""
    elif on_jetson and "gpu" in errors:
        in_container = "in a container, --runtime nvidia; else the torch of this JetPack"
        yield f"torch {version} sees no GPU: {errors['gpu']}", in_container
    if "numpy" in errors:
        older = "pip install 'numpy<2', for a torch that was built before NumPy 2"
        yield f"torch {version} shares no arrays with this NumPy: {errors['numpy']}", older
    if "torchvision" in errors:
        yield f"torchvision does not load beside torch {version}: {errors['torchvision']}", ""
    elif vision:
        pairs = {_number(torch): belongs for torch, belongs in known["torchvision"].items()}
        belongs = pairs.get(_number(version))
        if belongs and _number(vision) != _number(belongs):
            yield f"torchvision {vision} beside torch {version}: {belongs} belongs to it", ""


def _number(version: str) -> tuple[int, ...]:
    """The release and minor release of a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
