"""Which torch this Python has, whether it suits the board, and what to do if it does not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from powerctl.jetson.discovery import Missing
from powerctl.toml_files import read_toml

_LIMIT_S = 120.0  # the first import from a cold SD card takes tens of seconds


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


def look_at_torch(jetpack: str | None) -> TorchHere:
    """Look at the torch of this Python, on a board of a JetPack, or on another machine.

    It is imported in a process of its own, so that nothing is loaded here and a crash is told.
    """
    known = read_toml(resources.files("powerctl.jetson") / "torch.toml")
    remedies = known["remedies"]
    remedy = remedies.get((jetpack or "").partition(".")[0], remedies["other"])
    answers = _ask()
    said = {what: answer.get("says") for what, answer in answers.items()}
    faults = _faults(answers, said, known, on_jetson=jetpack is not None)
    return TorchHere(
        version=said["torch"],
        file=said["file"],
        cuda=said["cuda"],
        gpu=said["gpu"],
        torchvision=said["torchvision"],
        missing=tuple(Missing(what, mends or remedy) for what, mends in faults),
    )


def _ask() -> dict[str, dict[str, Any]]:
    """The answers of the other process; where it gave none, the reason as an error of torch."""
    questions = str(Path(__file__).with_name("torch_asked.py"))
    try:
        done = subprocess.run(
            [sys.executable, questions], capture_output=True, text=True, timeout=_LIMIT_S
        )
        if done.returncode == 0:
            answers: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
            return answers
        why = f"its process ended with {done.returncode}"
    except subprocess.TimeoutExpired:
        why = f"its import took more than {_LIMIT_S:g} s"
    return {"torch": {"error": why}} | {
        what: {} for what in ("file", "cuda", "gpu", "numpy", "torchvision")
    }


def _faults(
    answers: dict[str, dict[str, Any]],
    said: dict[str, Any],
    known: dict[str, Any],
    *,
    on_jetson: bool,
) -> list[tuple[str, str]]:
    """What does not suit, with the remedy where it is not another torch."""
    version, vision = said["torch"], said["torchvision"]
    if answers["torch"].get("absent") == "torch":
        return [(f"no torch for {sys.executable}: nothing is counted or trained with it", "")]
    if version is None:
        return [(f"torch cannot be used: {answers['torch']['error']}", "")]
    found = []
    if _minor(version) < _minor(known["oldest"]):
        oldest = known["oldest"]
        found.append((f"torch {version} is older than {oldest}: wattfed's pip replaces it", ""))
    if on_jetson and said["cuda"] is None:
        found.append((f"torch {version} was built without CUDA", ""))
    elif on_jetson and said["gpu"] is None:
        container = "in a container: --runtime nvidia; else the torch of this JetPack"
        found.append((f"torch {version} sees no GPU: {answers['gpu']['error']}", container))
    if said["numpy"] is None:
        found.append(
            (
                f"torch {version} takes no arrays of this NumPy: {answers['numpy']['error']}",
                "pip install 'numpy<2', for a torch that was built before NumPy 2",
            )
        )
    if vision is None:
        if answers["torchvision"].get("absent") != "torchvision":
            why = answers["torchvision"]["error"]
            found.append((f"torchvision does not load beside torch {version}: {why}", ""))
    elif known["torchvision"].get(_short(version), _short(vision)) != _short(vision):
        belongs = known["torchvision"][_short(version)]
        found.append((f"torchvision {vision} beside torch {version}: {belongs} belongs to it", ""))
    return found


def _minor(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _short(version: str) -> str:
    return ".".join(map(str, _minor(version)))
