"""The daemon as a service of systemd: its notifications, its lines in the journal, its unit."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from contextlib import suppress
from importlib import resources

_PRIORITIES = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}
_UNIT = "units/powerctl.service"


def unit(command: str) -> str:
    """The unit file of the service that runs a command, such as ``/opt/venv/bin/powerctl``."""
    text = (resources.files("powerctl.daemon") / _UNIT).read_text(encoding="utf-8")
    return text.replace("ExecStart=/usr/bin/powerctl ", f"ExecStart={command} ")


def log_to_stderr() -> None:
    """Write the daemon's log to stderr, with syslog's priorities where journald reads them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logger = logging.getLogger("powerctl")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if "JOURNAL_STREAM" in os.environ:
            return f"<{_PRIORITIES.get(record.levelno, 3)}>{text}"
        return f"powerctl daemon: {text}"


class Notifier:
    """Tells systemd that the daemon serves, lives and ends (sd_notify); elsewhere, nothing."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        limit_us = os.environ.get("WATCHDOG_USEC", "")
        self._period_s = int(limit_us) / 3e6 if limit_us.isdigit() else float("inf")
        self._told_s = 0.0

    def ready(self) -> None:
        """Say that the daemon serves now."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Say that the daemon begins to end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Say that the daemon lives, thrice as often as systemd wants to hear it."""
        if time.monotonic() - self._told_s >= self._period_s:
            self._told_s = time.monotonic()
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(state.encode(), address)
