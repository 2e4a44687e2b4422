"""Flower's short-lived commands from a process that has loaded their libraries already.

Flower starts a process for each message that a SuperNode receives, and each loads Flower and torch:
three seconds of processor time, which are most of what tests with a SuperLink take. Here a stand-in
for the command hands its arguments, environment and outputs to a warm process, which forks. That
has loaded libraries of others alone: the app, and what it imports of ours, is loaded as ever. The
stand-in ends with the command, passes signals on, and takes it along when it is killed.

As ``python tests/warm.py SOCKET`` it is the warm process.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path

# what is started for each message, run or question; who stays is started as users do it
COMMANDS = {
    "flower-superexec": "flwr.supercore.cli:flower_superexec",
    "flwr": "flwr.cli.app:app",
    "flwr-clientapp": "flwr.supernode.cli:flwr_clientapp",
    "flwr-serverapp": "flwr.superlink.cli:flwr_serverapp",
}
_LIBRARIES = (
    *("torch", "scipy.optimize", "flwr.clientapp", "flwr.serverapp.strategy"),
    *sorted({where.partition(":")[0] for where in COMMANDS.values()}),
)
_STAND_IN = """#!{python} -IS
import json, os, signal, socket, sys
far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
far.connect({address!r})
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, frame: far.send(bytes([number])))
asked = json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode() + b"\\n"
socket.send_fds(far, [asked[:1]], [0, 1, 2])
far.sendall(asked[1:])
ended = far.recv(1)
sys.exit(ended[0] if ended else 137)
"""


@cache
def programs() -> Path:
    """A folder of Flower's commands, the short-lived ones warm, for as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address = str(folder / "socket")
    warm = subprocess.Popen(
        [sys.executable, __file__, address], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    atexit.register(warm.kill)
    assert warm.stdout is not None
    assert warm.stdout.readline() == b"ready\n"
    for program in Path(sys.executable).parent.glob("fl*w*r*"):
        stand_in = folder / program.name
        if program.name in COMMANDS:
            stand_in.write_text(_STAND_IN.format(python=sys.executable, address=address))
            stand_in.chmod(0o755)
        else:
            stand_in.symlink_to(program)
    return folder


def _serve(address: str) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with who started it
    for library in _LIBRARIES:
        importlib.import_module(library)
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [entry for entry in sys.path[1:] if entry not in own]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        while True:
            near, _ = listening.accept()
            first, fds, _, _ = socket.recv_fds(near, 1, 3)
            words, environment, cwd = json.loads(first + near.makefile("rb").readline())
            pid = os.fork()
            if pid == 0:
                listening.close()
                for number, fd in enumerate(fds):
                    os.dup2(fd, number)
                os.chdir(cwd)
                os.environ.clear()
                os.environ.update(environment)
                more = [e for e in environment.get("PYTHONPATH", "").split(os.pathsep) if e]
                sys.path[:] = [str(Path(words[0]).parent), *more, *path]
                random.seed()
                threading.Thread(target=_obey, args=(near,), daemon=True).start()
                _become(words)
            for fd in fds:
                os.close(fd)
            threading.Thread(target=_tell_end, args=(near, pid), daemon=True).start()


def _become(words: list[str]) -> None:
    module, _, function = COMMANDS[Path(words[0]).name].partition(":")
    sys.argv[:] = words
    sys.exit(getattr(importlib.import_module(module), function)())


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


if __name__ == "__main__":
    _serve(sys.argv[1])
