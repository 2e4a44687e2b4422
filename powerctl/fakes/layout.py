"""Where a fake board's files are: as in JetPack 4 to 7 on Nano, Xavier and Orin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FAKE_MARKER = "fake-board.json"
"""A root that holds this file is a fake board: writes go through its kernel's rules."""

_GPU_NODES = {
    ("tegra210", "4"): ("sys/devices/57000000.gpu", "gpu"),
    ("tegra194", "4"): ("sys/devices/17000000.gv11b", "gv11b"),
    ("tegra194", "5"): ("sys/devices/17000000.gv11b", "gv11b"),
    ("tegra234", "5"): ("sys/devices/17000000.ga10b", "ga10b"),
    ("tegra234", "6"): ("sys/devices/platform/bus@0/17000000.gpu", "gpu"),
    ("tegra234", "7"): ("sys/devices/platform/bus@0/17000000.gpu", "gpu"),
}
CPU = "sys/devices/system/cpu"
BPMP = "sys/kernel/debug/bpmp/debug"
CLK = "sys/kernel/debug/clk"
BWMGR = "sys/kernel/debug/tegra_bwmgr"
SOCTHERM = "sys/devices/platform/soctherm-oc-event/hwmon/hwmon2"
HOT_SURFACE_MILLI = 70_000  # thousandths of a degree: of an Orin NX under L4T 36.3


@dataclass(frozen=True)
class Layout:
    """Paths of one chip under one JetPack.

    Attributes
    ----------
    chip : str
        ``tegra210``, ``tegra194`` or ``tegra234``.
    jetpack : str
        Major version: ``4`` to ``7``.
    """

    chip: str
    jetpack: str

    @property
    def is_recent(self) -> bool:
        """Whether it is of a kernel from 5.15 on, with drivers out of its tree: JetPack 6 and 7."""
        return self.jetpack in ("6", "7")

    @property
    def gpu(self) -> str:
        """The folder of the GPU as a device of the kernel."""
        return _GPU_NODES[self.chip, self.jetpack][0]

    @property
    def gpu_kind(self) -> str:
        """What the device tree calls the GPU."""
        return _GPU_NODES[self.chip, self.jetpack][1]

    @property
    def devfreq(self) -> str:
        """The folder of the GPU's clock."""
        return f"{self.gpu}/devfreq/{self.gpu.rpartition('/')[2]}"

    @property
    def gpu_alias(self) -> str:
        """The name by which nvpmodel finds the GPU."""
        return "sys/devices/platform/gpu.0" if self.is_recent else "sys/devices/gpu.0"

    @property
    def warns_of_hot_surface(self) -> bool:
        """Whether a trip point of the CPU's zone turns on nothing but a warning: an Orin's."""
        return self.chip == "tegra234"

    @property
    def emc_cap(self) -> str:
        """The file of the rate that nvpmodel lets the memory have at most."""
        if self.is_recent:
            return "sys/kernel/nvpmodel_clk_cap/emc"
        return "sys/kernel/nvpmodel_emc_cap/emc_iso_cap"

    @property
    def has_bpmp(self) -> bool:
        """Whether the memory clock is the BPMP's."""
        return self.chip != "tegra210"

    @property
    def emc_hold(self) -> str:
        """The file in which 1 holds the memory's rate."""
        if self.has_bpmp:
            return f"{BPMP}/clk/emc/mrq_rate_locked"
        return f"{CLK}/override.emc/clk_state"

    @property
    def emc_request(self) -> str:
        """The file in which a rate of the memory is asked for."""
        return f"{BPMP}/clk/emc/rate" if self.has_bpmp else f"{CLK}/override.emc/clk_update_rate"

    @property
    def emc_rate(self) -> str:
        """The file from which the rate in force is read."""
        return f"{BPMP}/clk/emc/rate" if self.has_bpmp else f"{CLK}/emc/clk_rate"

    def mask_file(self, folder: str, name: str) -> str:
        """The file of a power-gating mask: of the GPU's folder, or what is applied at a boot."""
        return f"opt/nvidia/l4t-gpusetup/{name}" if name == "gpu_pg_mask" else f"{folder}/{name}"

    def monitor(self, address: str) -> str:
        """The folder of a power monitor's channels."""
        node = f"sys/bus/i2c/devices/{address}"
        if self.jetpack == "4":
            return f"{node}/iio:device{address[-1]}"
        return f"{node}/hwmon/hwmon{3 + int(address[-1])}"

    def links(self, addresses: list[str]) -> dict[str, str]:
        """Symbolic links that never change: path to what it points at."""
        links = {self.gpu_alias: self.gpu, f"{self.devfreq}/device": self.gpu}
        links["sys/class/hwmon/hwmon2"] = SOCTHERM
        if self.is_recent:
            links["sys/devices/platform/17000000.gpu"] = self.gpu
        if self.warns_of_hot_surface:
            thermal = "sys/class/thermal"
            links[f"{thermal}/thermal_zone0/cdev0"] = f"{thermal}/cooling_device1"
            links[f"{thermal}/thermal_zone0/cdev1"] = f"{thermal}/cooling_device2"
        driver = "ina3221x" if self.jetpack == "4" else "ina3221"
        for address in addresses:
            node = f"sys/bus/i2c/devices/{address}"
            links[f"sys/bus/i2c/drivers/{driver}/{address}"] = node
            if self.jetpack != "4":
                folder = self.monitor(address)
                links[f"sys/class/hwmon/{folder.rpartition('/')[2]}"] = folder
        return links


def make_link(root: Path, path: str, target: str) -> None:
    """Make a relative symbolic link below a root."""
    link = root / path
    link.parent.mkdir(parents=True, exist_ok=True)
    up = "../" * path.count("/")
    link.symlink_to(up + target)
