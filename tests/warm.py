"""Python programs that start at once, from a process that has loaded their libraries.

torch, Flower and scipy take two to four seconds of processor time to load, which are most of what
tests that start programs would take. The warm process has loaded libraries of others alone; it
forks, and the child loads the program, and what it imports of ours, as ever.

`Popen` and `run` are `subprocess`'s for Python programs: console scripts, or this interpreter with
``-c``, ``-m`` or a file. What starts is a child of this process, with its own id, signals, session
and outputs. Only its command line in /proc is the warm process's. For tests of what a program
loads, or of how it starts, there is `subprocess`.

What multiprocessing spawns starts here too, once `take_over_spawning` was called.

`programs` is a folder of Flower's commands for processes that start them by name. Flower starts one
for each message that a SuperNode receives: there, a stand-in hands its arguments, environment and
outputs on, ends with the command, passes signals on, and takes it along when it is killed.

As ``python tests/warm.py SOCKET`` this file is the warm process.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import io
import json
import multiprocessing.util
import os
import queue
import random
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

# what Flower starts for each message, run or question
COMMANDS = ("flower-superexec", "flwr", "flwr-clientapp", "flwr-serverapp")
_LIBRARIES = (
    *("click", "grpc.aio", "matplotlib.figure", "multiprocessing.pool", "prometheus_client"),
    *("rich.live", "rich.progress", "scipy.optimize", "scipy.stats", "sklearn.datasets", "torch"),
    *("flwr.clientapp", "flwr.serverapp.strategy", "flwr.cli.app", "flwr.supercore.cli"),
    *("flwr.superlink.cli", "flwr.supernode.cli"),
)
_STOPS = (signal.SIGTERM, signal.SIGINT)
_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36
_STAND_IN = """#!{python} -IS
import json, os, signal, socket, sys
far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
far.connect({address!r})
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, frame: far.send(bytes([number])))
words = [{folder!r} + os.path.basename(sys.argv[0]), *sys.argv[1:]]
asked = dict(words=words, env=dict(os.environ), cwd=os.getcwd(), fds=[0, 1, 2], stand_in=True)
socket.send_fds(far, [b"."], [0, 1, 2])
far.sendall(json.dumps(asked).encode() + b"\\n")
ended = far.recv(1)
sys.exit(ended[0] if ended else 137)
"""


class Popen(subprocess.Popen):
    """A Python program, started as `subprocess.Popen` does it, with its libraries loaded."""

    def _execute_child(  # type: ignore[override]  # the one place where Popen starts something
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others
    ) -> None:
        _, _, shell, *pipes = others[:9]
        assert not (shell or executable or preexec_fn)
        fds = {number: number for number in pass_fds}
        fds |= {k: fd if fd >= 0 else k for k, fd in enumerate((pipes[0], pipes[3], pipes[5]))}
        self.pid = _started(
            words=list(map(os.fspath, args)),
            env=dict(os.environ if env is None else env),
            cwd=os.fspath(cwd or os.getcwd()),
            fds=fds,
            session=bool(others[14]),
        )
        self._child_created = True
        self._close_pipe_fds(*pipes)


def run(words: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end; what it printed is captured."""
    command = list(map(str, words))
    with Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as process:
        printed = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, *printed)


def take_over_spawning() -> None:
    """Have multiprocessing start the processes that this one spawns from the warm one."""
    usual = multiprocessing.util.spawnv_passfds

    def spawn(path: str, arguments: Sequence[str], passed: Sequence[int]) -> int:
        if "--multiprocessing-fork" not in arguments:  # its tracker, which loads nothing
            return usual(path, arguments, passed)
        return _started(
            words=[sys.executable, *arguments[arguments.index("-c") :]],
            env=dict(os.environ),
            cwd=os.getcwd(),
            fds={number: number for number in (0, 1, 2, *passed)},
        )

    multiprocessing.util.spawnv_passfds = spawn


def programs() -> Path:
    """A folder of Flower's commands, the short-lived ones warm, for as long as this process."""
    return Path(_address()).parent


@cache
def _address() -> str:
    """Where the warm process of this one listens; it ends with this one, and its folder goes."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address = str(folder / "socket")
    theirs = Path(sys.executable).parent
    for program in theirs.glob("fl*w*r*"):
        stand_in = folder / program.name
        if program.name in COMMANDS:
            text = _STAND_IN.format(python=sys.executable, address=address, folder=f"{theirs}/")
            stand_in.write_text(text)
            stand_in.chmod(0o755)
        else:
            stand_in.symlink_to(program)
    ready: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def start() -> None:
        """In a thread that stays: to Linux, the end of who starts it is that of its parent."""
        warm = subprocess.Popen(
            [sys.executable, __file__, address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},  # read while Flower is loaded
        )
        assert warm.stdout is not None
        ready.put(warm.stdout.readline())
        warm.wait()

    threading.Thread(target=start, daemon=True).start()
    assert ready.get() == b"ready\n"
    return address


def _started(*, fds: Mapping[int, int], **asked: object) -> int:
    """The process id of a program, which is a child of this process.

    What the warm process forks has a parent that ends at once: it is handed to the next process
    above that takes in orphans, which is this one until then.
    """
    libc = ctypes.CDLL(None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as far:
        far.connect(_address())
        libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            socket.send_fds(far, [b"."], list(fds.values()))
            far.sendall(json.dumps({**asked, "fds": list(fds), "stand_in": False}).encode() + b"\n")
            return int(far.makefile("rb").readline())
        finally:
            libc.prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _serve(address: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; it ends with who started it
    signal.signal(signal.SIGTERM, lambda *_: _end(address))
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    gc.disable()  # what is loaded stays
    for library in _LIBRARIES:
        with contextlib.suppress(ImportError):  # which this Flower does not have
            importlib.import_module(library)
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [entry for entry in sys.path[1:] if entry not in own]
    gc.freeze()  # a child's collections leave these pages shared
    gc.enable()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        while True:
            near, _ = listening.accept()
            _, given, _, _ = socket.recv_fds(near, 1, 64)
            asked = json.loads(near.makefile("rb").readline())
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # until the child has its own way
            pid = os.fork()
            if pid == 0:
                listening.close()
                if not asked["stand_in"] and (child := os.fork()):
                    os._exit(0 if near.send(b"%d" % child) else 1)
                _become(near, given, path, **asked)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            for fd in given:
                os.close(fd)
            if asked["stand_in"]:
                threading.Thread(target=_tell_end, args=(near, pid), daemon=True).start()
            else:
                os.waitpid(pid, 0)  # by now the child is handed over
                near.send(b"\n")
                near.close()


def _become(
    near: socket.socket,
    given: Sequence[int],
    path: Sequence[str],
    *,
    fds: Sequence[int],
    words: list[str],
    env: Mapping[str, str],
    cwd: str,
    stand_in: bool,
    session: bool = False,
) -> None:
    """Be a program, in the state in which an interpreter would start it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    if stand_in:
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        threading.Thread(target=_obey, args=(near,), daemon=True).start()
    elif session:
        os.setsid()
    if not stand_in:
        near.close()
    _take(given, fds)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    random.seed()
    if Path(words[0]).samefile(sys.executable):
        words = words[1:]
    options = [words.pop(0) for word in list(words) if word == "-u"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, _stream(number, bool(options) or "PYTHONUNBUFFERED" in env))
    sys.path[:] = [*filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *path]
    try:
        _run(words)
    except SystemExit as end:
        _leave(end.code)
    _leave(0)


def _run(words: list[str]) -> None:
    """Run a program as the main one: code, a module or a file."""
    how, *rest = words
    if how == "-c":
        sys.path.insert(0, "")
        sys.argv[:] = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif how == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv[:] = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(how).parent))
        sys.argv[:] = words
        runpy.run_path(how, run_name="__main__")


def _leave(code: object) -> None:
    """End as an interpreter does, but let the system take all modules away at once."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more
            stream.flush()
    os._exit((code or 0) & 0xFF)


def _take(given: Sequence[int], wanted: Sequence[int]) -> None:
    """Have descriptors at the numbers at which a program looks for them."""
    above = max(*wanted, *given) + 1
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in given]
    for fd in given:
        os.close(fd)
    for fd, number in zip(aside, wanted, strict=True):
        os.dup2(fd, number)
        os.close(fd)


def _stream(number: int, unbuffered: bool) -> io.TextIOWrapper:
    """A standard stream, as an interpreter opens it."""
    if number == 0:
        return open(0, encoding="utf-8", closefd=False)
    return io.TextIOWrapper(
        open(number, "wb", buffering=0 if unbuffered else -1, closefd=False),
        encoding="utf-8",
        errors="backslashreplace" if number == 2 else "strict",
        line_buffering=number == 2 or os.isatty(number),
        write_through=unbuffered,
    )


def _obey(near: socket.socket) -> None:
    """Take the signals that the stand-in gets, and end with it."""
    while number := near.recv(1):
        os.kill(os.getpid(), number[0])
    os.kill(os.getpid(), signal.SIGKILL)


def _tell_end(near: socket.socket, pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):  # the stand-in has gone
        near.sendall(bytes([code if code >= 0 else 128 - code]))
    near.close()


def _end(address: str) -> None:
    shutil.rmtree(Path(address).parent, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
