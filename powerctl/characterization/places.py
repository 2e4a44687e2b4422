"""Where a real study runs: this machine as it is, or a Jetson whose modes and meter are ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from powerctl.device import Device
from powerctl.devices.meters import Meter, open_meter
from powerctl.devices.opening import open_device
from powerctl.errors import InvalidInput
from powerctl.modes import PowerMode

SETTLING_S = 3.0  # power has settled this long after a change (PowerTrain, section 3)
_METER_PERIOD_S = 0.1


class Place(Protocol):
    """Sets modes, and counts energy.

    `period_s` is the time between two readings of the meter, `energy_source` what it measures.
    """

    energy_source: str
    period_s: float

    def check(self, mode: str) -> None:
        """Raise if there is no such mode here."""

    def apply(self, mode: str) -> None:
        """Set a mode and let power settle; the empty name leaves the mode that was found."""

    def energy_j(self) -> float:
        """Joules so far; NaN without a meter."""
        ...

    def presets(self) -> Mapping[str, PowerMode]:
        """The modes that have names; the board's default is under ``default`` too."""
        ...

    def mode_levels(self, text: str) -> tuple[str, ...]:
        """The modes of a text; see `Bench.mode_levels`."""
        ...

    def close(self) -> None:
        """Bring back the mode found."""


class AtPlace:
    """A bench that runs at a place, whose modes are the bench's."""

    _place: Place

    def named_modes(self) -> Mapping[str, PowerMode]:
        """The modes of the place that have names."""
        return self._place.presets()

    def mode_levels(self, text: str) -> tuple[str, ...]:
        """The modes of a text, as the place names them."""
        return self._place.mode_levels(text)

    def close(self) -> None:
        """Bring back the mode found."""
        self._place.close()


class ThisMachine:
    """The machine as it is: its modes stay, and energy is counted if something counts it."""

    period_s = _METER_PERIOD_S

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.energy_source = meter.name

    def check(self, mode: str) -> None:
        """Raise for any mode but the one found."""
        if mode:
            self.mode_levels(mode)

    def apply(self, mode: str) -> None:
        """Nothing: `check` lets no other mode through."""

    def energy_j(self) -> float:
        """Joules that the meter has counted since it was opened."""
        return self._meter.energy_j()

    def presets(self) -> Mapping[str, PowerMode]:
        """No mode of this machine has a name that can be set."""
        return {}

    def mode_levels(self, text: str) -> tuple[str, ...]:
        """Raise `InvalidInput`: modes of this machine are not ours to set."""
        raise InvalidInput(
            f"mode {text!r}: this machine's modes are not ours to set; on a Jetson use "
            "--device jetson, to simulate one --device twin:BOARD"
        )

    def close(self) -> None:
        """End the thread that reads the meter."""
        self._meter.close()


class OnDevice:
    """A device whose modes are set and whose meter is read."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._mode = ""
        self.period_s = device.power_period_s
        self.energy_source = device.energy_source

    def check(self, mode: str) -> None:
        """Raise for a mode that the board does not have."""
        if mode:
            self._device.space.check(self._device.board.mode(mode))

    def apply(self, mode: str) -> None:
        """Set the mode, verified, and wait until power has settled."""
        if mode == self._mode:
            return
        if mode:
            self._device.apply(self._device.board.mode(mode))
        else:
            self._device.restore()
        self._mode = mode
        self._device.idle(SETTLING_S)

    def energy_j(self) -> float:
        """Joules that the module has taken, by the device's meter."""
        return self._device.energy_j()

    def presets(self) -> Mapping[str, PowerMode]:
        """Of nvpmodel, and MAXN where it has none."""
        board = self._device.board
        named = {"MAXN": board.space.maximum}
        for preset in board.presets:
            named[preset.name] = preset.mode
            if preset.is_default:
                named["default"] = preset.mode
        return named

    def mode_levels(self, text: str) -> tuple[str, ...]:
        """Presets by their names, other modes as they are written."""
        if text == "presets":
            modes = list(self.presets().values())
        elif text.startswith("grid:"):
            number = text.removeprefix("grid:")
            if not number.isdecimal():
                raise InvalidInput(f"mode {text!r}: write grid:3 for three values of each axis")
            modes = list(self._device.space.thinned(int(number)))
        else:
            modes = [self._device.board.mode(text)]
        names = {mode: name for name, mode in self.presets().items() if name != "default"}
        return tuple(dict.fromkeys(names.get(mode, str(mode)) for mode in modes))

    def close(self) -> None:
        """Bring back the mode that the device was found in."""
        self._device.restore()


def open_place(spec: str, compute: str, gpu_uuid: str | None = None) -> Place:
    """The place of ``here`` or ``jetson``; `compute` is ``cpu`` or ``cuda``."""
    if spec == "here":
        return ThisMachine(open_meter(compute, gpu_uuid))
    if spec != "jetson":
        raise InvalidInput(f"--device is here, jetson or twin:BOARD, not {spec!r}")
    return OnDevice(open_device(spec))
