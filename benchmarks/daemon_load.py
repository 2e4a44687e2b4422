"""How long the daemon takes to restore a board, idle and under a load of requests.

    python -m benchmarks.daemon_load --rate 1000 --rounds 100 --json OUT

The real daemon serves a fake board; connections send it requests at a rate in all, and take the
answers. Meanwhile a holder applies a mode and asks to restore, again and again: what is timed is
`restore`, and, for a holder that is killed, from the kill to the moment when the board is as it
was found. Wall time of this machine; writing the fake's files is the largest part of it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

from powerctl import console
from powerctl.axes import PowerMode
from powerctl.daemon.listening import daemon_socket
from powerctl.daemon.messages import Request
from powerctl.daemon.remote import Daemon
from powerctl.fakes.making import make_fake_board

_CONNECTIONS = 10
_FORK = multiprocessing.get_context("fork")
_COMMAND = "import sys; from powerctl.cli import cli; cli(sys.argv[1:])"


@contextmanager
def daemon_of(root: Path) -> Iterator[None]:
    """The daemon of a board, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "daemon", "--root", str(root)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "serves at" in process.stderr.readline()
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    drain.start()
    try:
        yield
    finally:
        process.terminate()
        process.wait()


class Load:
    """A process whose connections ask at a rate in all, until it is closed."""

    def __init__(self, socket: Path, rate: float) -> None:
        self._stop, self._answers = _FORK.Event(), _FORK.Value("q", 0)
        self._started_s = time.monotonic()
        self._process = _FORK.Process(target=self._ask_all, args=(socket, rate))
        self._process.start()

    def close(self) -> float:
        """End it; gives the answers a second that it had."""
        self._stop.set()
        self._process.join()
        return float(self._answers.value / (time.monotonic() - self._started_s))

    def _ask_all(self, socket: Path, rate: float) -> None:
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            for _ in range(_CONNECTIONS if rate else 0):
                pool.submit(self._ask, Daemon(socket), _CONNECTIONS / rate)

    def _ask(self, daemon: Daemon, period_s: float) -> None:
        """Ask by one connection; after an answer that comes late, at once again."""
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            due_s += period_s
            daemon.ask(Request("read"))
            with self._answers.get_lock():
                self._answers.value += 1


def restore_ms(socket: Path, mode: PowerMode, rounds: int) -> list[float]:
    """Milliseconds from asking to restore to the answer."""
    holder, taken = Daemon(socket), []
    for _ in range(rounds):
        holder.ask(Request("apply", mode))
        started = time.perf_counter()
        holder.ask(Request("restore"))
        taken.append(1e3 * (time.perf_counter() - started))
    holder.close()
    return taken


def killed_ms(socket: Path, mode: PowerMode, rounds: int) -> list[float]:
    """Milliseconds from killing a holder until nobody holds the board, all being restored."""
    watcher, taken = Daemon(socket), []
    for _ in range(rounds):
        receiving, sending = os.pipe()
        child = os.fork()
        if child == 0:
            Daemon(socket).ask(Request("apply", mode))
            os.write(sending, b".")
            signal.pause()
        os.read(receiving, 1)
        started = time.perf_counter()
        os.kill(child, signal.SIGKILL)
        while watcher.ask(Request("read"))["holder"] is not None:
            pass
        taken.append(1e3 * (time.perf_counter() - started))
        os.waitpid(child, 0)
        os.close(receiving)
        os.close(sending)
    watcher.close()
    return taken


@click.command()
@click.option("--board", default="orin-agx", show_default=True, help="Fake board.")
@click.option("--rate", default=1000.0, show_default=True, help="Requests a second in all.")
@click.option("--rounds", default=100, show_default=True, help="Restores timed.")
@click.option("--json", "out", default="", metavar="OUT", help="Also write the result as JSON.")
def main(board: str, rate: float, rounds: int, out: str) -> None:
    """Time restoring, without load and with it."""
    results = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as at:
        root = make_fake_board(board, "5.1", Path(at) / "board").root
        socket = daemon_socket(root)
        with daemon_of(root):
            first = Daemon(socket)
            mode = PowerMode(*(axis[-1] for axis in first.ask(Request("read"))["axes"]))
            first.close()
            for name, measure in (("asked", restore_ms), ("holder killed", killed_ms)):
                for asked in (0.0, rate):
                    load = Load(socket, asked)
                    taken = measure(socket, mode, rounds)
                    answered = load.close()
                    p50, p99 = np.percentile(taken, [50, 99])
                    results.append(
                        {
                            "restore": name,
                            "load_per_s": asked,
                            "answered_per_s": answered,
                            "rounds": rounds,
                            "p50_ms": float(p50),
                            "p99_ms": float(p99),
                            "max_ms": max(taken),
                        }
                    )
    console.print_table(
        ("restore", "load (1/s)", "answered (1/s)", "p50 (ms)", "p99 (ms)", "max (ms)"),
        [[r["restore"], *(r[k] for k in list(r)[1:] if k != "rounds")] for r in results],
    )
    click.echo(f"fake {board}, {rounds} restores each; wall time of this machine")
    if out:
        Path(out).write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
