"""What this process runs on a GPU: launched and not waited for, it ends after the step that did."""

from __future__ import annotations

import sys


def synchronise() -> None:
    """Wait for it, if this process uses a GPU: before a window of time or energy closes."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
