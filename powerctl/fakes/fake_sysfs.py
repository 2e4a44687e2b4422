"""Fake boards: a folder whose files behave as a Jetson's, for tests and for trying things out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from powerctl.errors import InvalidInput
from powerctl.fakes.kernel import FakeKernel, FakeState
from powerctl.fakes.layout import CPU, FAKE_MARKER, make_link
from powerctl.jetson.nvpmodel import InstalledPreset, read_configuration
from powerctl.jetson.sysfs import Sysfs
from powerctl.modes import PowerMode
from powerctl.ownership import open_own, own_folder
from powerctl.reading import misread, parse_json

_NEW = "fake-board.new"
_CONSTANT = ("board", "l4t", "chip", "jetpack", "policies", "cpu_khz", "gpu_hz", "mem_hz", "zones")
Fault = Callable[[int, str, str], "str | None"]
"""Given the number, path and text of a write, what is written instead; None for nothing."""


class FakeSysfs(Sysfs):
    """A fake board's files: what is written goes through its kernel's rules.

    The state is on disc, so that another process, or one after a kill, finds the same board.

    Parameters
    ----------
    root : Path
        The folder, made by `powerctl.fakes.making.make_fake_board`.

    Attributes
    ----------
    writes : int
        How many writes were made through this object.
    fault : callable
        Called before each write; may raise, or change what is written.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.writes = 0
        self.fault: Fault = lambda number, path, text: text
        self._marker = self.root / FAKE_MARKER
        self._stamp = (0, 0)
        self._shown: dict[str, str] = {}
        self._linked: dict[str, str] = {}
        self._own: set[str] = set()
        own_folder(self.root)
        self._load()
        self._show()

    @property
    def kernel(self) -> FakeKernel:
        """Its kernel, in its present state."""
        self._load()
        return self._kernel

    def mode(self) -> PowerMode:
        """The mode that a load really runs in, throttling included."""
        return self.kernel.mode()

    def settings(self) -> dict[str, str]:
        """All that a controller may change: the state without what floats or is measured."""
        kernel = self.kernel
        state = dict(vars(kernel.state))
        del state["power_w"]
        state["cpu_limits"] = {number: kernel.cpu_range(number) for number in state["cpu_limits"]}
        state["gpu_limits"] = kernel.gpu_range()  # what was asked for beyond, nobody can read
        if not state["emc_hold"] and state["chip"] != "tegra210":
            del state["emc_request"]  # forgotten as soon as the rate is not held
        return {name: str(value) for name, value in state.items()}

    def may_write(self, path: str) -> bool:
        """Whether the fake kernel takes writes of a file."""
        return self.exists(path) and self.kernel.is_writable(self.resolve(path))

    def set_power(self, watts: float) -> None:
        """Let the rails show a power of the module; those that were taken away stay away."""
        self.kernel.state.power_w = watts
        for path, content in self._kernel.rail_files().items():
            if self.exists(path):
                self._put(path, content)

    def heat(self, celsius: float) -> None:
        """Let all zones have a temperature; nothing is slowed down by it, see `throttle`."""
        with self._changing() as kernel:
            kernel.state.celsius = celsius

    def throttle(self, *, over_current: bool = False, **ceilings: int) -> None:
        """Keep clocks below ceilings (cpu_khz, gpu_hz, mem_hz), for heat or over-current.

        Without ceilings, it ends.
        """
        with self._changing() as kernel:
            kernel.state.ceilings = dict(ceilings)
            if over_current:
                kernel.state.events += 1
            else:
                kernel.state.cooling = int(bool(ceilings))

    def leave_gpu(self) -> None:
        """Let no program use the GPU: its power goes off, and its clock is hidden."""
        with self._changing() as kernel:
            kernel.state.sleeps = True

    def nvpmodel(self, preset: int) -> subprocess.CompletedProcess[str]:
        """Do what ``nvpmodel -m ID`` does: it is another program that moves the clocks."""
        command = ["nvpmodel", "-m", str(preset)]
        configuration = read_configuration(self)
        assert configuration is not None
        chosen = configuration.preset(str(preset))
        if chosen.needs_reboot(self.kernel.state.masks):
            said = f"NVPM WARN: Reboot required for changing to this power mode: {preset}\n"
            return subprocess.CompletedProcess(command, 1, "", f"{said}NVPM ERROR: bad input!\n")
        with self._changing() as kernel:
            _set_preset(kernel, chosen)
        return subprocess.CompletedProcess(command, 0, "", "")

    def jetson_clocks(self) -> None:
        """What ``jetson_clocks`` does: every lowest clock becomes the highest, memory is held."""
        with self._changing() as kernel:
            for number in kernel.state.cpu_limits:
                kernel.state.cpu_limits[number][0] = kernel.state.cpu_limits[number][1]
            kernel.state.gpu_limits[0] = kernel.state.gpu_limits[1]
            kernel.state.emc_hold, kernel.state.emc_request = 1, kernel.state.mem_hz[-1]

    def _write(self, path: str, text: str) -> None:
        name = path if path in self._shown else self.resolve(path)
        self.writes += 1
        changed = self.fault(self.writes, name, text)
        if changed is not None:
            kernel = self.kernel
            kernel.write(name, changed)
            self._save()
            if name.endswith(("/online", "/railgate_enable")):  # folders come and go
                self._show()
            else:
                for shown, content in kernel.affected(name).items():
                    self._put(shown, content)

    @contextmanager
    def _changing(self) -> Iterator[FakeKernel]:
        """The kernel, whose state is on disc and shown when the block ends."""
        yield self.kernel
        self._save()
        self._show()

    def _save(self) -> None:
        state = vars(self._kernel.state)
        changing = json.dumps({name: state[name] for name in state if name not in _CONSTANT})
        self._overwrite(self._base + _NEW, f"{self._constant[:-1]}, {changing[1:]}")
        os.replace(self._base + _NEW, self._marker)
        self._stamp = self._present_stamp()

    def _present_stamp(self) -> tuple[int, int]:
        status = os.stat(self._marker)
        return (status.st_ino, status.st_mtime_ns)

    def _load(self) -> None:
        """Take over the state from disc if another process has changed it."""
        stamp = self._present_stamp()
        if stamp != self._stamp:
            with open(open_own(self._marker, os.O_RDONLY), "rb") as file:
                content = file.read()
            with misread(f"{self._marker}: no fake board"):
                state = FakeState(**parse_json(content, str(self._marker)))
                self._kernel = FakeKernel(state)
                self._kernel.files()  # what cannot be shown is no state of a board
            self._stamp = stamp
            self._shown, self._linked = {}, {}
            constant = {name: getattr(state, name) for name in _CONSTANT}
            self._constant = json.dumps(constant)

    def _show(self) -> None:
        """Bring the files in line with the state."""
        files, links = self._kernel.files(), self._kernel.links()
        for path in set(self._linked) - set(links):
            (self.root / path).unlink(missing_ok=True)
        for path in set(self._shown) - set(files):
            (self.root / path).unlink(missing_ok=True)
            with suppress(OSError):
                (self.root / path).parent.rmdir()
        if not self._shown:
            self._remove_stale(files, links)
        for path, content in files.items():
            self._put(path, content)
        for path, target in links.items():
            if path not in self._linked and not (self.root / path).is_symlink():
                make_link(self.root, path, target)
        self._shown, self._linked = files, links

    def _put(self, path: str, content: str) -> None:
        if self._shown.get(path) == content:
            return
        self._overwrite(self._base + path, content + "\n")
        self._shown[path] = content

    def _overwrite(self, path: str, text: str) -> None:
        """Write a file of the board, of which no part is a link to where it is not a board's.

        It is cut afterwards and never emptied before: a reader finds something, and ext4 writes
        what was emptied to disc at once.
        """
        folder = path.rpartition("/")[0] or "/"  # a fake board may be the root of a chroot
        if folder not in self._own:
            own_folder(Path(folder))
            if os.path.realpath(folder) != folder:
                raise InvalidInput(f"{folder}: a symbolic link is where a fake board has a folder")
            self._own.add(folder)
        try:
            file = open_own(path, os.O_WRONLY | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the folder has gone meanwhile
            self._own.remove(folder)
            return self._overwrite(path, text)
        try:
            length = os.write(file, text.encode())
            if os.fstat(file).st_size > length:
                os.ftruncate(file, length)
        finally:
            os.close(file)

    def _remove_stale(self, files: dict[str, str], links: dict[str, str]) -> None:
        """Remove what another process showed and this state has not."""
        for pattern in (f"{CPU}/cpufreq/policy*/*", "sys/class/devfreq/*", f"{CPU}/cpu*/cpufreq"):
            for path in self.find(pattern):
                if path not in files and path not in links:
                    (self.root / path).unlink(missing_ok=True)
                    with suppress(OSError):
                        (self.root / path).parent.rmdir()


def _set_preset(kernel: FakeKernel, preset: InstalledPreset) -> None:
    """Bring a preset's limits into force, as nvpmodel does."""
    state = kernel.state
    cores, cpu_khz, gpu_hz, mem_hz = preset.limits()
    state.online = [int(core < (cores or len(state.online))) for core in range(len(state.online))]
    lows = [
        int(v) for (p, a), v in preset.values.items() if p.startswith("CPU_") and a == "MIN_FREQ"
    ]
    full = [state.cpu_khz[0], state.cpu_khz[-1]]
    limits = [min(lows, default=0), cpu_khz or full[1]]
    for policy in state.policies:
        is_on = any(state.online[core] for core in policy)
        state.cpu_limits[str(policy[0])] = list(limits if is_on else full)
    state.gpu_limits = [0, gpu_hz or state.gpu_hz[-1]]
    state.emc_cap = mem_hz or (state.mem_hz[-1] if kernel.layout.is_recent else 0)
    state.emc_hold, state.preset = 0, preset.id
