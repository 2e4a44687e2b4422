"""Making the first epoch cold: the kernel's page cache is emptied, as far as permitted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from powerctl.errors import InvalidInput

METHODS = ("auto", "drop", "advise", "keep")
_DROP = Path("/proc/sys/vm/drop_caches")


def cache_method(asked: str = "auto", drop: Path = _DROP) -> str:
    """How the cache is emptied here.

    Parameters
    ----------
    asked : str
        ``drop``: all of the machine's, through ``/proc/sys/vm/drop_caches``, which takes root;
        ``advise``: the data set's own files, by ``posix_fadvise``; ``keep``: not at all;
        ``auto``: the first of them that is permitted.
    drop : Path
        The kernel's file.
    """
    if asked not in METHODS:
        raise InvalidInput(f"cache is {', '.join(METHODS)}, not {asked!r}")
    # access() alone would say yes to root in a container, where /proc/sys is read-only
    permitted = os.access(drop, os.W_OK) and _opens(drop)
    if asked == "drop" and not permitted:
        raise InvalidInput(f"{drop} cannot be written: --cache drop needs root; or --cache advise")
    if asked == "auto":
        return "drop" if permitted else "advise"
    return asked


def empty_cache(method: str, files: Iterable[Path], drop: Path = _DROP) -> None:
    """Put files out of the page cache, after what is written to them is on the disc."""
    if method == "keep":
        return
    if method == "drop":
        os.sync()
        drop.write_text("3\n")  # pages, and the names and places of files
        return
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _opens(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError:
        return False
    return True
