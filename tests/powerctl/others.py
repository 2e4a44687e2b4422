"""Acting as another user of the machine, which takes a root."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

OTHER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@contextmanager
def as_another(act):
    """Act as another user, in a child that lives until the block ends; gives how it went."""
    receiving, sending = os.pipe()
    waiting, ending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ending)
        try:
            os.setgroups([])
            os.setgid(OTHER)
            os.setuid(OTHER)
            act()
            said = "done"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(sending, said.encode())
        os.read(waiting, 1)
        os._exit(0)
    os.close(sending)
    os.close(waiting)
    try:
        yield os.read(receiving, 4096).decode()
    finally:
        os.close(ending)
        os.close(receiving)
        os.waitpid(child, 0)
