"""A case tried in a child process, under limits of time and memory, in a folder of its own."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST_S = 20.0  # of a case: of computing, or of waiting for what does not come
_MEMORY_BYTES = 1 << 30  # beside what this process has
_MOST_TEXT = 4_000  # characters of what is said; a message quotes at most 200
_INSIDE = "home/work/inside"  # of a case's folder: what is beside it is looked at in the end
_STOPPED = 128 + signal.SIGTERM


class Wrong(Exception):
    """What a door did that it must not do."""


@dataclass(frozen=True)
class Door:
    """Something of ours that takes what others give, and a valid example of it.

    `goes` does with a changed example, in a child process, what the product does, and returns in a
    word what became of it. It raises `Wrong`, or whatever the product should have caught. Before
    that, in this process, it is made `ready`. It computes for at most `longest_s`, waits no longer
    than that or `LONGEST_S`, and takes at most `memory_bytes`.
    """

    name: str
    example: Any
    goes: Callable[[Any], str]
    ready: Callable[[], None] = lambda: None
    longest_s: float = LONGEST_S
    memory_bytes: int = _MEMORY_BYTES


@dataclass(frozen=True)
class Found:
    """What became of a case: a word; of a failure, the kind that tells it from others, and all."""

    word: str
    kind: str = ""
    detail: str = ""


def tried(door: Door, case: Any) -> Found:
    """What becomes of a case at a door."""
    door.ready()
    with _folder() as folder:
        inside = folder / _INSIDE
        before = _listing(folder, inside)
        found = _in_child(door, case, inside)
        after = _listing(folder, inside)
    if not found.kind and after != before:
        paths = sorted(str(path) for path in after ^ before)
        return Found("failed", "wrote outside its folder", ", ".join(paths))
    return found


def _in_child(door: Door, case: Any, inside: Path) -> Found:
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.close(reading)
        _answer(door, case, inside, writing)
    os.close(writing)
    data, is_over = b"", False
    used_s, moved_s = 0.0, time.monotonic()
    wait_s = max(LONGEST_S, door.longest_s)
    # a loaded machine stretches what takes long, but not what a process computes or how it waits
    while not is_over and used_s < door.longest_s and time.monotonic() - moved_s < wait_s:
        if select.select([reading], [], [], 0.2)[0]:
            part = os.read(reading, 1 << 20)
            data += part
            is_over = not part
        elif os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            is_over = True  # though what it has started has the pipe too
        elif (now_s := _computed_s(child)) > used_s:
            used_s, moved_s = now_s, time.monotonic()
    # what it said right before it ended
    while select.select([reading], [], [], 0)[0] and (part := os.read(reading, 1 << 20)):
        data += part
    os.close(reading)
    _end_all(child, inside)
    _, status = os.waitpid(child, 0)
    if not is_over:
        return Found("failed", f"longer than {door.longest_s:g} s")
    if not data:
        return Found("failed", f"the process died: {os.waitstatus_to_exitcode(status)}")
    found: Found
    found, imported = pickle.loads(data)  # of our own child
    for name in imported:  # so that the next case has it at once
        with suppress(Exception):
            importlib.import_module(name)
    return found


def _end_all(child: int, inside: Path) -> None:
    """Kill a child, its group, and whatever it started that has left the group."""
    home = f"\0HOME={inside.parent}\0".encode()
    for process in _since(child):
        with suppress(OSError):
            if home in b"\0" + (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    for end in (os.killpg, os.kill):
        with suppress(ProcessLookupError):
            end(child, signal.SIGKILL)


def _computed_s(child: int) -> float:
    """Processor time of a child and its group."""
    ticks = 0
    for process in _since(child):
        with suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == child:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _since(child: int) -> Iterator[Path]:
    """A child, and the processes that have begun after it."""
    return (path for path in Path("/proc").glob("[0-9]*") if int(path.name) >= child)


def _answer(door: Door, case: Any, inside: Path, writing: int) -> None:
    """Be the child: never returns."""
    found, before = Found("failed", "the child broke"), {*sys.modules}
    try:
        gc.disable()  # it would touch, and so copy, all that the parent has
        os.setsid()
        os.chdir(inside)
        os.environ["HOME"] = str(inside.parent)
        os.environ["POWERCTL_HOME"] = str(inside / "kept")  # where it may write
        os.environ["XDG_RUNTIME_DIR"] = str(inside)
        null = os.open(os.devnull, os.O_RDONLY)
        out = os.open(inside.parent / "said", os.O_WRONLY | os.O_CREAT)
        for there, number in ((null, 0), (out, 1), (out, 2)):
            os.dup2(there, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + door.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_MEMORY_BYTES, _MEMORY_BYTES))
        found = Found(door.goes(case))
    except Wrong as wrong:
        first, _, rest = str(wrong).partition("\n")
        found = Found("failed", first, rest)
    except BaseException as error:
        found = Found("failed", _kind(error), "".join(traceback.format_exception(error)[-12:]))
    os.write(writing, pickle.dumps((found, [*(sys.modules.keys() - before)])))
    os._exit(0)


def _kind(error: BaseException) -> str:
    """The type of an error, and the last place of ours that it came through."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in ("site-packages", "/lib/python", "breaking"))
    ]
    place = f" in {Path(ours[-1].filename).name}: {ours[-1].name}" if ours else ""
    return f"{type(error).__name__}{place}"


def check_end(code: object, said: str, *, is_stopped: bool = False) -> str:
    """What became of a command by its exit code; raises `Wrong` unless that is an end of ours."""
    files = [line.split('"')[1] for line in said.splitlines() if line.startswith('  File "')]
    is_theirs = files and all(Path(file).name == "my_task.py" for file in files)
    if "Traceback (most recent call last)" in said and not is_theirs:  # people see their own
        error = said.rstrip().rsplit("\n", 1)[-1].partition(":")[0]
        raise Wrong(f"a traceback of {error:.60} in {Path(files[-1]).name}\n{said[-3000:]}")
    if code not in (0, 1, 2, None, *([_STOPPED] if is_stopped else [])):
        raise Wrong(f"exit code {code}\n{said[-2000:]}")
    if code and not said.strip():
        raise Wrong(f"exit code {code} without a word")
    repeats = "unexpected extra argument" in said  # click, what was typed
    if code and code != _STOPPED and len(said) > _MOST_TEXT and not repeats:
        raise Wrong(f"an error of more than {_MOST_TEXT} characters\n{said[:600]}")
    return "stopped" if code == _STOPPED else "refused" if code else "taken"


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="wattfed-break-", dir=_memory()))
    try:
        (folder / _INSIDE).mkdir(parents=True)
        (folder / _INSIDE).parent.joinpath("said").touch()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _memory() -> str | None:
    """Where files are in memory, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _listing(folder: Path, inside: Path) -> set[tuple[str, int]]:
    """What lies in a folder, with its sizes, but for another in it and the caches of a home."""
    own = {
        inside,
        inside.parent / ".cache",
        inside.parent / ".config",
        inside.parent / ".local",
    } | {inside.parent / "said"}
    return {
        (str(path.relative_to(folder)), path.lstat().st_size if not path.is_dir() else 0)
        for path in folder.rglob("*")
        if not own & {path, *path.parents}
    }
