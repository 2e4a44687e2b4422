"""Boards as they were found in the field, by public reports: fake ones, changed as those were.

Each says where it was seen.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from powerctl.fakes.fake_sysfs import FakeSysfs
from powerctl.fakes.layout import FAKE_MARKER, Layout
from powerctl.jetson.nvpmodel import CONFIGURATION

THERMAL = "sys/class/thermal"


@dataclass(frozen=True)
class Found:
    """A board of the field.

    Attributes
    ----------
    board, jetpack : str
        The fake board that it is made from.
    change : callable
        Makes it what was found.
    lacks : callable
        The kernel's files that it does not have, or does not show.
    sets_modes, measures_power : bool
        Whether modes can be set there by a process of its own, and its power be measured.
    """

    board: str
    jetpack: str
    change: Callable[[FakeSysfs], object] = lambda made: None
    lacks: Callable[[Layout], tuple[str, ...]] = lambda layout: ()
    sets_modes: bool = True
    measures_power: bool = True


def write(made: FakeSysfs, path: str, text: str) -> None:
    """Put a file on a board that its fake kernel does not know."""
    (made.root / path).parent.mkdir(parents=True, exist_ok=True)
    (made.root / path).write_bytes(text.encode())


def edit(made: FakeSysfs, old: str, new: str) -> None:
    """Change the installed configuration of nvpmodel."""
    text = (made.root / CONFIGURATION).read_text()
    assert old in text
    write(made, CONFIGURATION, text.replace(old, new, 1))


def limit_current(made: FakeSysfs) -> None:
    """Let presets limit the input's current too, by a kind of parameter of its own."""
    monitor = "/sys/devices/platform/c250000.i2c/i2c-7/7-0040/hwmon"
    declared = f"< PARAM TYPE=HWMON NAME=VDDIN_OC_LIMIT >\nWARN {monitor}\nCRIT {monitor}\n"
    edit(made, "< POWER_MODEL", f"{declared}\n< POWER_MODEL")
    edit(made, "\n< PM_CONFIG", "VDDIN_OC_LIMIT WARN 4000\nVDDIN_OC_LIMIT CRIT 5000\n\n< PM_CONFIG")


def shut_in(made: FakeSysfs, mark: str | None = ".dockerenv") -> None:
    """Take away what an unprivileged container does not see of its host."""
    shutil.rmtree(made.root / "proc/device-tree")
    (made.root / "proc/device-tree").symlink_to("/sys/firmware/devicetree/base")
    (made.root / "etc/nv_tegra_release").unlink()
    (made.root / CONFIGURATION).unlink()
    write(made, "proc/mounts", "sysfs /sys sysfs ro,nosuid,nodev,noexec,relatime 0 0\n")
    if mark:
        write(made, mark, "")


def masked(layout: Layout) -> tuple[str, ...]:
    """The device tree's nodes, which lie below ``/sys/firmware``, and debugfs."""
    return (f"{layout.gpu}/of_node/name", layout.emc_rate, layout.emc_hold)


def overclock(made: FakeSysfs) -> None:
    """Write a limit twice, comment others out, and forget the section of the default."""
    edit(made, "GPU MAX_FREQ -1", "#GPU MAX_FREQ -1 # is commented\nGPU MAX_FREQ 950000000")
    edit(made, "\n< PM_CONFIG DEFAULT=0 >", "GPU MAX_FREQ 998400000")


def keep_in_a_store(made: FakeSysfs) -> None:
    """Link the configuration to where a read-only system keeps all of its files."""
    store = "nix/store/h1-nvidia-l4t-nvpmodel/etc/nvpmodel/nvpmodel_p3767_0003.conf"
    write(made, store, (made.root / CONFIGURATION).read_text())
    (made.root / CONFIGURATION).unlink()
    (made.root / CONFIGURATION).symlink_to(f"../{store}")
    (made.root / "etc/nv_tegra_release").unlink()


def cluster(made: FakeSysfs) -> None:
    """Let four cores share a clock, as the policies of older kernels, with the second four off."""
    limits = made.kernel.state.cpu_limits
    remake(
        made,
        policies=[[0, 1, 2, 3], [4, 5, 6, 7]],
        cpu_limits={"0": limits["0"], "4": limits["4"]},
        online=[1, 1, 1, 1, 0, 0, 0, 0],
    )


def remake(made: FakeSysfs, **state: object) -> None:
    """Let the fake kernel be in another state."""
    write(made, FAKE_MARKER, json.dumps({**vars(made.kernel.state), **state}))
    FakeSysfs(made.root)


def take_monitors_away(made: FakeSysfs) -> None:
    """Take the power monitors off the carrier board, and the kernel's folder of their driver."""
    remake(made, rails=[])
    shutil.rmtree(made.root / "sys/bus/i2c")


def rename(made: FakeSysfs, model: str, *compatible: str) -> None:
    """Let the device tree name another carrier board or module."""
    write(made, "proc/device-tree/model", f"{model}\0")
    write(made, "proc/device-tree/compatible", "\0".join(compatible) + "\0")


def add_radio(made: FakeSysfs) -> None:
    """Add a radio that cools itself, sensors that are off, and a monitor of the carrier board's."""
    for path, text in {
        f"{THERMAL}/cooling_device7/type": "iwlwifi_1",
        f"{THERMAL}/cooling_device7/cur_state": "3",
        f"{THERMAL}/thermal_zone9/type": "iwlwifi_1",
        f"{THERMAL}/thermal_zone9/temp": "-256000",
        "sys/class/hwmon/hwmon9/name": "tmp451",
        "sys/bus/i2c/drivers/ina3221/7-0041/hwmon/hwmon8/in1_label": "NC",
        "sys/bus/i2c/drivers/ina3221/7-0041/hwmon/hwmon8/in1_input": "0",
    }.items():
        write(made, path, f"{text}\n")


def save_elsewhere(made: FakeSysfs) -> None:
    """Save the configuration with an editor that ends lines in its own way."""
    text = (made.root / CONFIGURATION).read_text()
    write(made, CONFIGURATION, "\ufeff" + text.replace("\n", "\r\n"))


FIELD: dict[str, Found] = {
    # A robot's monitor, measured on an Orin NX of L4T 36.3: at 70 degrees a passive trip point
    # turns on hot-surface-alert alone; hundreds of times an hour under load on an AGX Orin.
    "hot surface": Found("orin-nx", "6", lambda made: made.heat(74)),
    # nvpower.sh of L4T 35 asks for TYPE=HWMON of VDDIN_OC_LIMIT; a Xavier NX's presets set it.
    "limit of current": Found("xavier-nx", "5.1", limit_current),
    # NVIDIA/jetson-gpio 52 and 73, rbonghi/jetson_stats 63: Docker masks /sys/firmware.
    "docker": Found("orin-agx", "6", shut_in, masked, sets_modes=False),
    # k3s and Talos: no mark of Docker's, /sys read-only all the same.
    "pod": Found("orin-nx", "5.1", lambda made: shut_in(made, mark=None), masked, sets_modes=False),
    # Qengineering/Jover: overclocked Nanos, and modes of their own.
    "overclocked": Found("nano", "4", overclock),
    # anduril/jetpack-nixos 461: a link into the store; no release file.
    "store": Found("orin-nano", "6", keep_in_a_store),
    # cooling devices cpufreq-cpu0 and cpufreq-cpu4 of the same Orin NX: policies of four cores.
    "clusters": Found("orin-nx", "6", cluster),
    # OE4T/meta-tegra 1613: carrier boards without INA3221; module names of the Super trees.
    "carrier": Found(
        "orin-nano",
        "6",
        lambda made: (
            take_monitors_away(made),
            rename(made, "Custom J401", "nvidia,p3768-0000+p3767-0003-super", "nvidia,tegra234"),
        ),
        measures_power=False,
    ),
    # Device trees of vendors: no part number, a name in several parts, a letter of another script.
    "unnamed": Found(
        "orin-nx",
        "6",
        lambda made: rename(made, "Caméra\0v2\t", "vendor,ngx024", "nvidia,tegra234"),
    ),
    "saved elsewhere": Found("orin-agx", "5.1", save_elsewhere),
    # M.2 radios register a cooling device; a sensor that is off shows -256 degrees.
    "radio": Found("xavier-agx", "5.1", add_radio),
    # An Xavier NX of L4T 35.6.5 on which emc_cap cannot be read; rbonghi/jetson_stats 567.
    "no cap": Found(
        "xavier-nx", "5.1", lacks=lambda layout: (layout.emc_cap, "var/lib/nvpmodel/status")
    ),
}
