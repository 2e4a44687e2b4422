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


def main() -> None:
    """Print the answers and the errors, by question; what is not installed has neither."""
    says: dict[str, str | None] = {}
    errors: dict[str, str] = {}
    for what, ask in _QUESTIONS.items():
        try:
            says[what] = ask()
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "torchvision"):
                errors[what] = str(error)
        except Exception as error:  # whatever a foreign library raises
            errors[what] = " ".join(str(error).split()) or type(error).__name__
    print(json.dumps([says, errors]))


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    main()
