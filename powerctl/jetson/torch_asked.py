"""What torch and torchvision say of themselves, as JSON: run as a file, in a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any


def _torch() -> Any:
    return importlib.import_module("torch")


_QUESTIONS: dict[str, Callable[[], str | None]] = {
    "torch": lambda: str(_torch().__version__),
    "file": lambda: str(_torch().__file__),
    "cuda": lambda: _torch().version.cuda,
    "gpu": lambda: str(_torch().cuda.get_device_name()),
    "numpy": lambda: str(_torch().zeros(1).numpy().dtype),
    "torchvision": lambda: str(importlib.import_module("torchvision").__version__),
}


def _answer(ask: Callable[[], str | None]) -> dict[str, str | None]:
    """The answer, or the error in one line; `absent` names a module that is not installed."""
    try:
        return {"says": ask()}
    except Exception as error:  # whatever a foreign library raises
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        return {"error": " ".join(str(error).split()) or type(error).__name__, "absent": absent}


if __name__ == "__main__":
    own = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != own]
    print(json.dumps({what: _answer(ask) for what, ask in _QUESTIONS.items()}))
