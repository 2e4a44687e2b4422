"""Doors of the daemon: its journal, its socket, and another user's process beside it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.breaking import studio
from benchmarks.breaking.files import Thing, place, tokens
from benchmarks.breaking.trying import LONGEST_S, Door, Wrong, check_end, tried
from powerctl.daemon.listening import daemon_socket
from powerctl.daemon.messages import Request
from powerctl.daemon.remote import Daemon
from powerctl.errors import PowerctlError
from powerctl.fakes.fake_sysfs import FakeSysfs
from powerctl.fakes.making import make_fake_board
from powerctl.jetson.controller import OwnController
from powerctl.jetson.journal import Journal

_BOARD = Path("board")
_OTHER = 65534
_LOOK_S = 0.02


class _Drawn(Enum):
    """What the search draws from, printed as a test that is made of a finding would write it."""

    def __repr__(self) -> str:
        return f"daemon.{self}"


class Act(_Drawn):
    """What another user's process tries at a path."""

    CONNECT = "connect"
    LOCK = "lock"
    LOCK_SHARED = "lock shared"
    WRITE = "write"
    REMOVE = "remove"
    RENAME = "rename"
    LINK = "link"
    SECOND_NAME = "second name"
    PIPE = "pipe"
    FOLDER = "folder"
    OPEN = "open to all"


class Where(_Drawn):
    """A path that the daemon uses."""

    SOCKET = "run/powerctl/daemon.sock"
    DAEMON_LOCK = "run/powerctl/daemon.lock"
    LOCK = "var/lib/powerctl/lock"
    JOURNAL = "var/lib/powerctl/found.jsonl"
    PARTIAL = "var/lib/powerctl/found.partial"
    RUN = "run/powerctl"
    STATE = "var/lib/powerctl"
    BOARD = "."


def doors(stack: ExitStack) -> Iterator[Door]:
    """The journal of a daemon that was killed, what is sent to one, and who else is there."""
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="wattfed-daemon-")))
    made = tried(Door("a board", None, partial(_left_changed, folder)), None)
    if made.word != "taken":
        raise AssertionError(made)
    before = json.loads((folder / "before").read_text())
    journal = Journal(FakeSysfs(folder / "changed")).path.read_bytes()
    example = {"is": Thing.FILE, "content": tokens(journal)}
    yield Door("the journal", example, partial(_start, folder, before, journal))
    axes = OwnController(FakeSysfs(folder / "board")).axes
    asked: list[Any] = [{"verb": verb} for verb in ("read", "hold", "restore", "read")]
    asked.insert(1, {"verb": "apply", "mode": list(axes.maximum.values)})
    yield Door("the socket", asked, partial(_send, folder, before, _line))
    raw = b"".join(map(_line, asked))
    yield Door("the socket, bytes", raw, partial(_send, folder, before, bytes))
    act = {"act": Act.WRITE, "at": Where.JOURNAL}
    acts = {"modes": [{"at": Where.STATE, "mode": 0o755}]} | {
        when: [act, {"act": Act.CONNECT, "at": Where.SOCKET}, {"act": Act.LOCK, "at": Where.LOCK}]
        for when in ("before", "during", "after")
    }
    if not os.geteuid():
        yield Door("another user", acts, partial(_beside, folder, before))


def _left_changed(folder: Path, _: object) -> str:
    """Make a fake board, and another as a killed controller leaves it."""
    board = make_fake_board("orin-nano", "5.1", folder / "board")
    (folder / "before").write_text(json.dumps(board.settings()))
    shutil.copytree(folder / "board", folder / "changed", symlinks=True)
    controller = OwnController(FakeSysfs(folder / "changed"))
    controller.apply(controller.axes.minimum)
    return "taken"  # and this process ends without an end of its own


@contextmanager
def _served() -> Iterator[int | None]:
    """A daemon in a process of its own while it is needed; None where it has refused to start."""
    sys.stdout.flush()
    daemon = os.fork()
    if not daemon:
        code = 99
        with suppress(BaseException):
            code = studio.exit_code(["powerctl", "daemon", "--root", str(_BOARD)])
        os._exit(code)
    end_s = time.monotonic() + 10 * LONGEST_S  # on a machine that does much else
    while not _answers():
        ended, status = os.waitpid(daemon, os.WNOHANG)
        if ended or time.monotonic() > end_s:
            code = os.waitstatus_to_exitcode(status) if ended else 99
            check_end(code, studio.said())
            yield None
            return
        time.sleep(_LOOK_S)
    yield daemon
    with suppress(ProcessLookupError):  # it was killed
        os.kill(daemon, signal.SIGTERM)
        _, status = os.waitpid(daemon, 0)
        check_end(os.waitstatus_to_exitcode(status), studio.said())


def _answers() -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(daemon_socket(_BOARD)))
        except OSError:
            return False
        return True


def _ask(*requests: Request) -> str:
    """What the daemon has against some requests; empty if nothing."""
    daemon = Daemon(daemon_socket(_BOARD.absolute()))
    try:
        for request in requests:
            daemon.ask(request)
    except PowerctlError as error:
        if len(str(error)) > 5_000 or "\n" in str(error):
            raise Wrong(f"an answer that is no line\n{error!s:.2000}") from error
        return str(error) or "without a word"
    finally:
        daemon.close()
    return ""


def _is_as(before: Any) -> bool:
    return bool(json.loads(json.dumps(FakeSysfs(_BOARD).settings())) == before)


def _start(folder: Path, before: Any, journal: bytes, case: Any) -> str:
    """Start a daemon on a journal: it starts, says what is changed, and sets what a boot sets."""
    shutil.copytree(folder / "changed", _BOARD, symlinks=True)
    path = _BOARD / Where.JOURNAL.value
    path.unlink()
    place(path, case, bytes)
    head = journal.partition(b"\n")[0] + b"\n"
    is_known = path.is_file() and not path.is_symlink() and path.read_bytes().startswith(head)
    with _served() as daemon:
        if daemon is None:
            raise Wrong(f"the daemon does not start\n{studio.said()[-2000:]}")
        amiss = _ask(Request("restore"))
        if is_known and not amiss and not _is_as(before):
            raise Wrong("all is said to be restored, and is not")
        code = studio.exit_code(["powerctl", "restore", "--root", str(_BOARD), "--json"])
        if code != (2 if amiss else 0):
            raise Wrong(f"the daemon says {amiss or 'nothing'!r}, restore ends with {code}")
    code = studio.exit_code(["powerctl", "restore", "--root", str(_BOARD), "--as-booted"])
    if code or (is_known and not _is_as(before)):
        raise Wrong(f"setting what a boot sets ends with {code}\n{studio.said()[-2000:]}")
    return "told" if amiss else "restored"


def _line(request: Any) -> bytes:
    return json.dumps(request).encode() + b"\n"


def _send(folder: Path, before: Any, encoded: Callable[[Any], bytes], case: Any) -> str:
    """Send a daemon something: it answers or hangs up, serves others, and restores the board."""
    try:
        data = b"".join(map(encoded, case)) if isinstance(case, list) else encoded(case)
    except (TypeError, ValueError, RecursionError):
        return "cannot be sent"
    shutil.copytree(folder / "board", _BOARD, symlinks=True)
    with _served():
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LONGEST_S / 2)
            connection.connect(str(daemon_socket(_BOARD)))
            answer = b""
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        if amiss := _ask(Request("read"), Request("restore")):
            raise Wrong(f"another is not served\n{amiss}")
        if not _is_as(before):
            raise Wrong("the board is not restored")
    return "refused" if b'"error"' in answer else "taken"


def _beside(folder: Path, before: Any, case: Any) -> str:
    """A daemon that is killed and started again, with another user's process beside it."""
    shutil.copytree(folder / "board", _BOARD, symlinks=True)
    os.chmod(Path("../../.."), 0o755)
    precious = Path("precious").absolute()
    precious.write_text("precious")
    precious.chmod(0o600)
    case = case if isinstance(case, dict) else {}
    for one in _those(case, "modes"):
        mode = one.get("mode")
        if isinstance(one.get("at"), Where) and type(mode) is int and 0 <= mode < 0o10000:
            path = _BOARD / one["at"].value
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix or path.name == "lock" else path.mkdir(exist_ok=True)
            path.chmod(mode)
    minimum = OwnController(FakeSysfs(_BOARD)).axes.minimum
    _as_another(_those(case, "before"), precious)
    words = []
    for when, applied in (("during", (Request("apply", minimum),)), ("after", ())):
        with _served() as daemon:
            if daemon is not None:
                if amiss := _ask(*applied, Request("read")):
                    words.append("refused")
                if not applied and not amiss and not _is_as(before):
                    raise Wrong("the board is not restored, and nothing is said")
                _as_another(_those(case, when), precious)
                if applied:
                    os.kill(daemon, signal.SIGKILL)
                    os.waitpid(daemon, 0)
    if precious.read_text() != "precious" or precious.stat().st_mode & 0o077:
        raise Wrong("root's file was changed")
    return "refused" if words else "taken"


def _those(case: dict[str, Any], name: str) -> list[dict[str, Any]]:
    there = case.get(name)
    return [one for one in there if isinstance(one, dict)] if isinstance(there, list) else []


def _as_another(acts: list[dict[str, Any]], precious: Path) -> None:
    """Do things as another user, in a process that stays, with what it holds, to the end."""
    receiving, sending = os.pipe()
    if not os.fork():
        os.setgroups([])
        os.setgid(_OTHER)
        os.setuid(_OTHER)
        held = []
        for one in acts[:20]:
            with suppress(Exception):
                held.append(_DOES[one["act"]](str(_BOARD / one["at"].value), str(precious)))
        os.write(sending, b".")
        time.sleep(3600.0)
    os.read(receiving, 1)


def _connected(path: str, _: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(Request("read").encode())
    return connection


def _locked(how: int, path: str, _: str) -> int:
    file = os.open(path, os.O_RDONLY)
    fcntl.flock(file, how | fcntl.LOCK_NB)
    return file


def _linked(link: Callable[[str, str], None], path: str, precious: str) -> None:
    with suppress(OSError):
        os.unlink(path)
    link(precious, path)


_DOES: dict[Act, Callable[[str, str], Any]] = {
    Act.CONNECT: _connected,
    Act.LOCK: partial(_locked, fcntl.LOCK_EX),
    Act.LOCK_SHARED: partial(_locked, fcntl.LOCK_SH),
    Act.WRITE: lambda path, _: Path(path).write_text("{}\n"),
    Act.REMOVE: lambda path, _: os.unlink(path),
    Act.RENAME: lambda path, _: os.rename(path, f"{path}.old"),
    Act.LINK: partial(_linked, os.symlink),
    Act.SECOND_NAME: partial(_linked, os.link),
    Act.PIPE: lambda path, _: os.mkfifo(path),
    Act.FOLDER: lambda path, _: os.mkdir(path),
    Act.OPEN: lambda path, _: os.chmod(path, 0o777),
}
