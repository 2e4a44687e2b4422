"""The power of a module: by its power monitor (INA3221) and the board's rule, or by jtop."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from powerctl.board_files import BOARDS, read_board
from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.jetson.sysfs import Sysfs

_DRIVERS = "sys/bus/i2c/drivers"
_SHUNT_SUM = "7"  # channel of the monitor's sum of shunt voltages: not a rail
_INPUT_OF_INA238 = "VIN"  # as tegrastats calls it; most kernels give it no label
_INPUTS = ("VIN", "POM_5V_IN", "VDD_IN")
_NAMES_AN_INPUT = re.compile(r"(^|_)V?IN$")


@dataclass(frozen=True)
class RailSensor:
    """A channel of a power monitor: the files that, multiplied, are the power of one rail.

    Attributes
    ----------
    label : str
        Of the rail.
    files : tuple of str
        What they hold, multiplied, is its power: mV and mA, or mW.
    watts_per_unit : float
        Of that product.
    """

    label: str
    files: tuple[str, ...]
    watts_per_unit: float

    def power_w(self, sysfs: Sysfs) -> float:
        """Its power now; an `OSError` if the sensor does not answer."""
        product = 1
        for path in self.files:
            product *= sysfs.read_int(path)
        return product * self.watts_per_unit


def find_rails(sysfs: Sysfs) -> tuple[RailSensor, ...]:
    """Every channel that is connected, by the drivers of JetPack 5 to 7 (hwmon) and 4 (iio).

    A Thor has an INA238 beside its INA3221, which measures the power of the module's input.
    """
    rails = []
    for path in sysfs.find(f"{_DRIVERS}/ina3221/*/hwmon/hwmon*/in*_label"):
        folder, _, name = path.rpartition("/")
        channel = name.removeprefix("in").removesuffix("_label")
        label = sysfs.read_if(path) or ""
        if channel != _SHUNT_SUM and _is_connected(label):
            files = (f"{folder}/in{channel}_input", f"{folder}/curr{channel}_input")
            if all(sysfs.exists(file) for file in files):
                rails.append(RailSensor(label, files, 1e-6))
    for path in sysfs.find(f"{_DRIVERS}/ina238/*/hwmon/hwmon*/power1_input"):
        label = sysfs.read_if(f"{path.rpartition('/')[0]}/in1_label") or _INPUT_OF_INA238
        rails.append(RailSensor(label, (path,), 1e-6))
    for path in sysfs.find(f"{_DRIVERS}/ina3221x/*/iio:device*/rail_name_*"):
        folder, _, name = path.rpartition("/")
        label = sysfs.read_if(path) or ""
        if _is_connected(label):
            file = f"{folder}/in_power{name.removeprefix('rail_name_')}_input"
            rails.append(RailSensor(label, (file,), 1e-3))
    return tuple(rails)


def _is_connected(label: str) -> bool:
    return bool(label) and label != "NC"


def total_labels(rails: Sequence[RailSensor], rule: str = "module") -> tuple[str, ...]:
    """The rails whose power is added up to the module's.

    Parameters
    ----------
    rails : sequence of RailSensor
        What was found.
    rule : {"module", "jtop", "labels"}
        ``"module"``: the rail of the module's input, or the rails that feed all others, as the
        board catalogue has them. ``"labels"``, for a board that it lacks: likewise, and of rails
        that none of its boards has the one that is named as an input (``..._IN``, ``VIN``), else
        all of them, which nobody has verified. ``"jtop"``: as jtop adds them up; on an AGX Orin
        that counts the DRAM's rail a second time, as published figures do.

    Raises
    ------
    DeviceUnavailable
        If the rails are not those of a board of the catalogue.
    """
    labels = [rail.label for rail in rails]
    if rule == "jtop":
        inputs = [label for label in labels if label in _INPUTS]
        return tuple(inputs[:1] or labels)
    if rule not in ("module", "labels"):
        raise InvalidInput(f"the total is 'module', 'jtop' or 'jtop-service', not {rule!r}")
    for boards in (BOARDS.built_in, BOARDS.others()):  # ours first: others change nothing of them
        rules = {_total_of(name) for name in boards}
        for chosen in sorted(rules, key=lambda total: (len(total), total)):
            if set(chosen) <= set(labels):
                return chosen
    if labels and rule == "labels":
        inputs = [label for label in labels if _NAMES_AN_INPUT.search(label)]
        return tuple(inputs[:1] or labels)
    if not labels:
        raise DeviceUnavailable("there is no INA3221 power monitor")
    raise DeviceUnavailable(
        f"the rails {', '.join(labels)} are not those of a Jetson of the catalogue"
    )


def _total_of(board: str) -> tuple[str, ...]:
    known = read_board(board)
    in_total = known["total_power_rails"]
    return tuple(rail["label"] for rail in known["rail"] if rail["label"] in in_total)


class PowerSource(Protocol):
    """Reads the power of the module.

    Attributes
    ----------
    name : str
        What reads it.
    period_s : float
        Seconds over which a mean says something.
    """

    name: str
    period_s: float

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the rails that the total is made up of."""
        ...

    def total_w(self) -> float:
        """Watts of the module at this moment."""
        ...


class RailPower:
    """Reads the rails that make up the module's power.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    rule : {"module", "jtop"}
        How the total is made up; see `total_labels`.
    """

    name = "INA3221"
    period_s = 0.5  # 75 fresh readings

    def __init__(self, sysfs: Sysfs, rule: str = "module") -> None:
        self._sysfs = sysfs
        self.rails = find_rails(sysfs)
        self.labels = total_labels(self.rails, rule)
        # A carrier board may have a second monitor with the labels of the module's, which is first.
        first = {rail.label: rail for rail in reversed(self.rails)}
        self._in_total = [first[label] for label in self.labels]

    def total_w(self) -> float:
        """Watts of the rails that make up the module's power."""
        return sum(rail.power_w(self._sysfs) for rail in self._in_total)


class NoPower:
    """Stands in for the monitor that a board lacks: its modes can be set all the same.

    Parameters
    ----------
    why : str
        What is missing.
    """

    name = "no power monitor"
    period_s = 1.0
    labels = ()

    def __init__(self, why: str) -> None:
        self.why = why

    def total_w(self) -> float:
        """Raise an `OSError` that says why there is no power."""
        raise OSError(self.why)


class JtopPower:
    """A client of the jtop service; jetson-stats is an optional extra.

    The service looks once a second, in whole milliwatts. Its rails are added up here by its rule
    (see `total_labels`), as its own total has whatever answers: versions before 7.2.2 count a USB-C
    supply among them.

    Parameters
    ----------
    client : optional
        An open client, by default a new one.
    own : collection of str
        Rails of the module's own monitors, which alone are counted; by default all that jtop has.
    clock : callable
        Seconds.

    Raises
    ------
    DeviceUnavailable
        If jetson-stats is not installed, its service does not answer, or it reads no power.
    """

    name = "jtop service"
    period_s = 2.0  # two readings

    def __init__(
        self,
        client: Any = None,
        own: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client or _open_client()
        self._own = own
        self._clock = clock
        self._uptime, self._told_s = self._client.uptime, clock()
        rails = self._rails()
        if not rails:
            raise DeviceUnavailable(
                "the jtop service reads no power monitor of this board's module"
            )
        inputs = [label for label in rails if label in _INPUTS]
        self.labels = tuple(inputs[:1] or rails)

    def total_w(self) -> float:
        """Watts in total, by jtop's rule.

        Raises
        ------
        OSError
            If the service has gone, has told nothing new for two periods, or lacks a rail of the
            total: jtop's client keeps the last sample for ever.
        """
        self._check_fresh()
        rails = self._rails()
        if lost := [label for label in self.labels if label not in rails]:
            raise OSError(f"the jtop service does not read {lost[0]} now")
        return sum(rails[label] for label in self.labels)

    def close(self) -> None:
        """Close the connection to the service."""
        self._client.close()

    def _check_fresh(self) -> None:
        try:
            is_well = self._client.ok(spin=True)
        except Exception as error:  # whatever has ended its thread
            raise OSError(f"the jtop service has gone: {error}") from None
        if not is_well:
            raise OSError("the jtop service has gone")
        now_s, uptime = self._clock(), self._client.uptime  # as the service stamps each sample
        if uptime != self._uptime:
            self._uptime, self._told_s = uptime, now_s
        elif now_s - self._told_s > 2 * self._client.interval:
            silent_s = now_s - self._told_s
            raise OSError(f"the jtop service has told nothing new for {silent_s:.1f} s")

    def _rails(self) -> dict[str, float]:
        """Watts of each of the module's rails, the input too, which jtop has as its total."""
        power = self._client.power  # empty without monitors
        rails, total = dict(power.get("rail", {})), power.get("tot", {})
        if "name" in total:
            rails[total["name"]] = total
        own = self._own or rails
        return {label: rail["power"] / 1000 for label, rail in rails.items() if label in own}


def _open_client() -> Any:
    try:
        from jtop import jtop
    except ImportError:
        raise DeviceUnavailable(
            "jtop is part of jetson-stats: pip install 'powerctl[jetson]'"
        ) from None
    client = jtop()
    try:
        client.start()
    except Exception as error:  # jtop's own exceptions share no base but this
        raise DeviceUnavailable(f"the jtop service does not answer: {error}") from None
    return client
