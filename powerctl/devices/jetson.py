"""The Jetson device: a board's own clocks and power monitor behind the Device protocol."""

from __future__ import annotations

import logging
import math
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from powerctl.accelerator import synchronise
from powerctl.axes import ModeAxes
from powerctl.board_files import UNKNOWN_RELEASE, caveat, read_board
from powerctl.boards import Board, keep_found, load_board
from powerctl.daemon.remote import open_controller
from powerctl.device import Device, check_wait
from powerctl.devices.estimated import EstimatedEnergy
from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.jetson.controller import Controller, OwnController
from powerctl.jetson.energy import EnergyIntegral, PowerSampler
from powerctl.jetson.identity import Identity
from powerctl.jetson.journal import Journal
from powerctl.jetson.plausible import PowerCheck, most_power_w
from powerctl.jetson.rails import NoPower, PowerSource, RailPower, find_rails
from powerctl.jetson.self_description import describe
from powerctl.jetson.sysfs import Sysfs
from powerctl.jetson.throttling import Thermometer, read_throttling
from powerctl.modes import ModeSpace, PowerMode
from powerctl.ownership import InUse
from powerctl.uncatalogued import found_board
from powerctl.workload import Workload

log = logging.getLogger("powerctl.jetson")

_VERIFY_EVERY_S = 2.0  # of clocks and counters: 20 to 30 ms on a board


class Jetson(Device):
    """A Jetson that this process controls, itself or through the daemon.

    Opening only looks. From the first `apply` the board is locked against other controllers, and
    its state is on disc before the first write; it is back, and the lock gone, after `restore`,
    `close`, an exception in `apply`, the end of the process, and SIGTERM; after a kill at once
    where the daemon serves, else by ``powerctl restore`` or with the next controller.

    Parameters
    ----------
    root : Path
        Of the kernel's files.
    total : {"module", "jtop", "jtop-service"}
        How rails add up to the module's power, see `powerctl.jetson.rails.total_labels`; or the
        jtop service, which reads them once a second.
    socket : Path, optional
        Of the daemon; by default ``$POWERCTL_SOCKET``, or the one of this root if it is there.
    named : str, optional
        Which board it is, for where neither a device tree nor a daemon says it.

    Attributes
    ----------
    energy_source : str
        Which rails are counted; or that energies are the cost model's, as the board has no monitor.

    Raises
    ------
    DeviceUnavailable
        If clocks are missing, or a total that is asked for by name; says what mends it.
    """

    has_thermometer = True
    keeps_found = True
    _files: type[Sysfs] = Sysfs

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        total: str = "module",
        socket: Path | None = None,
        named: str | None = None,
    ) -> None:
        self.sysfs = self._files(root)
        self._controller = self._control(socket, named)
        board = board_found(self.sysfs, self._controller.identity, self._controller.axes)
        super().__init__(board, board.space)
        rule = self._controller.identity.total_rule if total == "module" else total
        self.power = _power_source(self.sysfs, rule)
        self.measures_power = not isinstance(self.power, NoPower)
        self.thermometer = Thermometer(self.sysfs)
        self.power_period_s = self.power.period_s
        self.energy_source = f"module ({self.power.name}: {' + '.join(self.power.labels)})"
        if isinstance(self.power, NoPower):
            self.energy_source = f"estimate: cost model of {board.name}, as {self.power.why}"
            log.warning("energies are no measurements: %s", self.energy_source)
        elif not board.is_catalogued:
            self.energy_source += f", {caveat(board.modules)}"
        self._verified_s = 0.0
        self._closing = weakref.finalize(self, _leave, self._controller, self._start_metering())

    def apply(self, mode: PowerMode) -> None:
        """Set a mode and read it back; if it is not in force, all is restored.

        Raises
        ------
        ModeNotInSpace
            If the board has no such mode.
        ModeNotInForce
            Naming the axis and the reason.
        DeviceUnavailable
            If another controls the board, or this process may not.
        """
        try:
            self._controller.apply(mode)
        finally:
            self._settle()
        self._integral.enter(mode)
        self._verified_s = -_VERIFY_EVERY_S

    def mode(self) -> PowerMode:
        """Which mode is in force, by the limits that the kernel holds."""
        return self._controller.mode()

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Run one minibatch; returns its seconds.

        Raises
        ------
        ModeNotInForce
            If the applied mode is not in force under this load; looked at every two seconds.
        """
        with self._integral.running(workload):
            seconds = self._run(workload, step)
        if self.now() - self._verified_s >= _VERIFY_EVERY_S:
            self.verify()
        return seconds

    def verify(self) -> None:
        """Hold the applied mode against what is measured now; see `Verification.check`."""
        self._controller.verify()
        self._verified_s = self.now()

    def excess_c(self, limit_c: float = math.inf) -> float:
        """By how many degrees it is hotter than it may be; see `Thermometer.excess_c`."""
        return self.thermometer.excess_c(limit_c)

    def watch_throttling(self) -> Callable[[], str]:
        """Begin to watch for over-current events, alarms, and cooling that slows the board down."""
        before = read_throttling(self.sysfs)

        def look() -> str:
            now = read_throttling(self.sysfs)
            return ", ".join(filter(None, (now.since(before), now.now())))

        return look

    def idle(self, seconds: float) -> None:
        """Sleep, in the mode in force."""
        check_wait(seconds)
        time.sleep(seconds)

    def now(self) -> float:
        """Real seconds since the device was opened."""
        return time.monotonic() - self._start_s

    def energy_j(self) -> float:
        """Joules of the module since opening; what was launched on the GPU before is waited for."""
        synchronise()
        return self._integral.energy_j()

    def restore(self) -> None:
        """Bring back the state found before the first `apply`, and let others control the board."""
        self._controller.restore()
        self._settle()

    def bring_back(self) -> bool:
        """Restore what a killed controller has left changed; whether one had.

        Where the daemon serves it has done so already.
        """
        noted = Journal(self.sysfs)
        if not isinstance(self._controller, OwnController) or not (noted.found or noted.damage):
            return False
        try:
            self._controller.bring_back()
        except InUse:  # another controller is at work, and will restore
            return False
        self._settle()
        return True

    def close(self) -> None:
        """Restore and stop metering; a second time does nothing."""
        self._closing()

    def __enter__(self) -> Jetson:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _control(self, socket: Path | None, named: str | None) -> Controller:
        """What sets the board's modes."""
        return open_controller(self.sysfs, socket, named)

    def _start_metering(self) -> Callable[[], None]:
        """Start the clock, and integrate the power that is read from now on; gives what ends it."""
        self._start_s = time.monotonic()
        self._integral = self._integral_over(time.monotonic)
        if isinstance(self._integral, EstimatedEnergy):
            return lambda: None
        return PowerSampler(self._integral).close

    def _integral_over(self, clock: Callable[[], float]) -> EnergyIntegral | EstimatedEnergy:
        """What gives energy on a clock: the monitor's readings, or the cost model without one."""
        if not self.measures_power:
            return EstimatedEnergy(self.board, self.mode(), clock)
        check = PowerCheck(self.energy_source, most_power_w(self.board))
        return EnergyIntegral(self.power.total_w, clock, check)

    def _run(self, workload: Workload, step: Callable[[], None] | None) -> float:
        """Run the step to its end on the GPU; returns the seconds."""
        if step is None:
            raise InvalidInput(
                f"a Jetson runs real minibatches of {workload.name}; say what runs one: "
                "--task my_task.py"
            )
        began_s = self.now()
        step()
        synchronise()
        return self.now() - began_s

    def _settle(self) -> None:
        """After a change of clocks there is nothing to do: real power follows by itself."""


def board_found(sysfs: Sysfs, identity: Identity, axes: ModeAxes) -> Board:
    """The board that a Jetson is, with the axes that were found on it.

    One that the catalogue lacks is what it says of itself. One of an unknown release has the
    catalogue's presets for the axes that are like its own.
    """
    if identity.name is None:
        board = found_board(describe(sysfs, identity, axes.axes))
    else:
        release = identity.known_release(identity.name) or _release_of(identity.name, axes)
        space = ModeSpace(*axes.axes, name=identity.name)
        board = replace(load_board(identity.name, release), space=space, l4t=identity.release)
    if not board.is_catalogued or board.l4t == UNKNOWN_RELEASE:
        keep_found(board)
    return board


def _release_of(name: str, axes: ModeAxes) -> str | None:
    """The release whose clocks a board has; None if it is none of the catalogue's."""
    for entry in read_board(name)["release"]:
        if (tuple(entry["cpu_khz"]), tuple(entry["gpu_hz"])) == (axes.cpu_khz, axes.gpu_hz):
            release: str = entry["l4t"]
            return release
    return None


def _power_source(sysfs: Sysfs, rule: str) -> PowerSource:
    if rule in ("module", "labels"):
        try:
            return RailPower(sysfs, rule)
        except DeviceUnavailable as error:  # modes can be set, and work be done, without it
            return NoPower(str(error))
    if rule != "jtop-service":
        return RailPower(sysfs, rule)
    from powerctl.jetson.rails import JtopPower

    return JtopPower(own=[rail.label for rail in find_rails(sysfs)])


def _leave(controller: Controller, stop_metering: Callable[[], None]) -> None:
    """What closing does; also at the end of the process, and when nobody refers to the device."""
    stop_metering()
    controller.close()
