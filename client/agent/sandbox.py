"""A sandbox that a process closes around itself: no files, network or processes, bounded memory.

Seccomp is the wall: what is not on a short list of system calls is refused, in every thread, for
good. Landlock is a second one behind it, where the kernel has it: nothing is written outside /dev
and the process's own /proc, nothing bound or connected, nobody signalled. Neither asks for any
privilege.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import sys
from pathlib import Path

from powerctl.errors import DeviceUnavailable

_LIBRARY = "libseccomp.so.2"  # of the distribution, which systemd and apt use too
_ALLOW, _ERRNO, _THREADS_TOO = 0x7FFF0000, 0x00050000, 4  # SCMP_ACT_*, SCMP_FLTATR_CTL_TSYNC
_EQUAL, _MASKED = 4, 7  # SCMP_CMP_EQ, SCMP_CMP_MASKED_EQ
_CLONE_THREAD = 0x00010000
_ALLOWED = (
    *("mmap", "munmap", "mremap", "mprotect", "madvise", "mincore", "brk", "membarrier"),
    *("futex", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity", "getcpu"),
    *("gettid", "getpid", "exit", "exit_group", "restart_syscall"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
    *("clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "getrandom"),
    *("read", "pread64", "lseek", "fstat", "close"),  # of what is open already
)
_ALLOWED_ON_A_GPU = (
    "ioctl",
    "poll",
    "ppoll",
    "eventfd2",
    "sysinfo",
)  # by which its driver is spoken to
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on every machine
_READ_AND_RUN = 1 << 0 | 1 << 2 | 1 << 3  # execute, read files, list folders


class _Comparison(ctypes.Structure):
    """What an argument of a system call must be, as libseccomp has it."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def lack() -> str:
    """Why there is no sandbox to be had here; empty if there is."""
    if sys.platform != "linux":
        return f"{sys.platform} has no seccomp"
    try:
        level = _seccomp().seccomp_api_get()
    except OSError:
        return f"{_LIBRARY} is missing: apt install libseccomp2"
    return "" if level >= 2 else "the kernel has no seccomp for all threads of a process"


def begin() -> None:
    """Take what a process never needs from its first thread on, and all that it starts.

    CUDA does not start where it cannot name its threads, by their files in /proc. Where the kernel
    has no Landlock there is only seccomp, in `close`.
    """
    version = _landlock(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return
    files = (1 << (13, 14, 15, 15, 16)[min(version, 5) - 1]) - 1
    handled = (ctypes.c_uint64 * 3)(files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 * (1 if version < 4 else 2 if version < 6 else 3)
    rules = _checked(_landlock(_LANDLOCK_CREATE, handled, size, 0))
    for path, rights in (("/", _READ_AND_RUN), ("/dev", files), ("/proc/self", files)):
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        beneath = rights.to_bytes(8, sys.byteorder) + folder.to_bytes(4, sys.byteorder)
        _checked(_landlock(_LANDLOCK_ADD, rules, 1, beneath, 0))
        os.close(folder)
    _checked(ctypes.CDLL(None, use_errno=True).prctl(38, 1, 0, 0, 0))  # PR_SET_NO_NEW_PRIVS
    _checked(_landlock(_LANDLOCK_RESTRICT, rules, 0))
    os.close(rules)


def close(writes_to: tuple[int, ...], memory_bytes: int, *, gpu: bool) -> None:
    """Leave the process what is open, no more threads' rights than a list, and so much more memory.

    Parameters
    ----------
    writes_to : tuple of int
        Descriptors that it may write to.
    memory_bytes : int
        Of address space, beside what it has now.
    gpu : bool
        Whether it also speaks to the driver of a GPU, through devices that are open.

    Raises
    ------
    DeviceUnavailable
        If the kernel does not close it.
    """
    library = _seccomp()
    rules = ctypes.c_void_p(library.seccomp_init(_ERRNO | errno.EPERM))
    _checked(library.seccomp_attr_set(rules, _THREADS_TOO, 1))

    def rule(call: str, action: int = _ALLOW, *wanted: _Comparison) -> None:
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:  # else this machine, or this libseccomp, has no such call
            given = (_Comparison * len(wanted))(*wanted)
            _checked(library.seccomp_rule_add_array(rules, action, number, len(wanted), given))

    for call in _ALLOWED + (_ALLOWED_ON_A_GPU if gpu else ()):
        rule(call)
    for descriptor in writes_to:
        rule("write", _ALLOW, _Comparison(0, _EQUAL, descriptor))
    rule("clone", _ALLOW, _Comparison(0, _MASKED, _CLONE_THREAD, _CLONE_THREAD))
    rule("clone3", _ERRNO | errno.ENOSYS)  # its flags cannot be looked at; clone follows
    rule("fcntl", _ALLOW, _Comparison(1, _EQUAL, fcntl.F_DUPFD_CLOEXEC))  # to map the shared memory
    rule("tgkill", _ALLOW, _Comparison(0, _EQUAL, os.getpid()))  # its own end, by abort
    limit(memory_bytes)
    _checked(library.seccomp_load(rules))
    library.seccomp_release(rules)


def limit(more_bytes: int) -> None:
    """Let this process have so much more address space than now, and write no files, on Linux."""
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more_bytes
    for limit, value in (
        (resource.RLIMIT_AS, most),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def _seccomp() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    return library


def _landlock(call: int, *arguments: object) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(call, *arguments))


def _checked(result: int) -> int:
    if result < 0:
        why = os.strerror(ctypes.get_errno() or -result)
        raise DeviceUnavailable(f"the sandbox cannot be closed: {why}")
    return result
