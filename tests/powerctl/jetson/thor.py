"""The files of a Jetson AGX Thor under JetPack 7, as published logs show them.

Sources: pairs of cores share a clock (NVIDIA's Sionna kit, tuning of a Thor); gpu-gpc-0, gpu-nvd-0
and bwmgr, INA3221 and INA238 by the paths that monitors of Thor read; clocks that logs show,
of whose lists the ends and some steps are known; presets of nvpmodel_p3834_0008.conf by name.
"""

from __future__ import annotations

import os
from pathlib import Path

CPU_KHZ = (54_000, 242_000, 337_000, 649_000, 972_000, 1_350_000, 2_601_000)
GPU_HZ = (315_000_000, 1_575_000_000)
EMC_HZ = (665_600_000, 3_200_000_000, 4_266_000_000)
CORES = 14
GPU = "sys/devices/platform/bus@0/pcie/0000:01:00.0"
MASK = "opt/nvidia/l4t-gpusetup/gpu_pg_mask"
PRESETS = ("MAXN", "120W", "90W", "70W")


def make_thor(root: Path) -> Path:
    """Write the tree; gives its root."""
    for path, text in _files().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{text}\n")
    for path, target in _links().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(os.path.relpath(root / target, (root / path).parent))
    return root


def _files() -> dict[str, object]:
    cpu, emc = "sys/devices/system/cpu", "sys/kernel/debug/bpmp/debug/clk/emc"
    files: dict[str, object] = {
        "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0"
        "nvidia,tegra264\0",
        "etc/nv_tegra_release": "# R38 (release), REVISION: 4.0, GCID: 0, BOARD: generic",
        "sys/module/nvidia/version": "580.00",
        f"{cpu}/present": f"0-{CORES - 1}",
        f"{cpu}/online": f"0-{CORES - 1}",
        f"{emc}/rate": EMC_HZ[1],
        f"{emc}/min_rate": EMC_HZ[0],
        f"{emc}/max_rate": EMC_HZ[-1],
        f"{emc}/mrq_rate_locked": 0,
        f"{emc}/state": 1,
        "sys/kernel/nvpmodel_clk_cap/emc": EMC_HZ[-1],
        f"{GPU}/power/control": "auto",
        MASK: 512,
        "etc/nvpmodel.conf": _configuration(),
        "var/lib/nvpmodel/status": "pmode:0001",
    }
    for core in range(1, CORES):
        files[f"{cpu}/cpu{core}/online"] = 1
    for first in range(0, CORES, 2):
        policy = f"{cpu}/cpufreq/policy{first}"
        files[f"{policy}/affected_cpus"] = f"{first} {first + 1}"
        files[f"{policy}/scaling_available_frequencies"] = " ".join(map(str, CPU_KHZ))
        files[f"{policy}/scaling_min_freq"] = CPU_KHZ[0]
        files[f"{policy}/scaling_max_freq"] = CPU_KHZ[-1]
    for domain in ("gpu-gpc-0", "gpu-nvd-0"):
        folder = f"{GPU}/devfreq/{domain}"
        files[f"{folder}/available_frequencies"] = " ".join(map(str, GPU_HZ))
        files[f"{folder}/min_freq"], files[f"{folder}/max_freq"] = GPU_HZ
        files[f"{folder}/cur_freq"] = GPU_HZ[0]
    rails = (
        ("VDD_GPU", 20_000, -20),
        ("VDD_CPU_SOC_MSS", 20_000, 325),
        ("VIN_SYS_5V0", 5_000, 1_300),
    )
    for channel, (label, millivolt, milliampere) in enumerate(rails, start=1):
        monitor = "sys/bus/i2c/devices/2-0040/hwmon/hwmon4"
        files[f"{monitor}/in{channel}_label"] = label
        files[f"{monitor}/in{channel}_input"] = millivolt
        files[f"{monitor}/curr{channel}_input"] = milliampere
    files["sys/bus/i2c/devices/2-0044/hwmon/hwmon5/power1_input"] = 23_400_000
    return files


def _links() -> dict[str, str]:
    drivers = "sys/bus/i2c/drivers"
    links = {
        f"{drivers}/ina3221/2-0040": "sys/bus/i2c/devices/2-0040",
        f"{drivers}/ina238/2-0044": "sys/bus/i2c/devices/2-0044",
    }
    for domain in ("gpu-gpc-0", "gpu-nvd-0"):  # a PCI device: it has no of_node
        links[f"sys/class/devfreq/{domain}"] = f"{GPU}/devfreq/{domain}"
        links[f"{GPU}/devfreq/{domain}/device"] = GPU
    return links


def _configuration() -> str:
    lines = ["< PARAM TYPE=FILE NAME=GPU_POWER_GATING >", f"GPU_PG_MASK /{MASK}", ""]
    lines += ["< PARAM TYPE=CLOCK NAME=GPU >"]
    lines += ["MAX_FREQ /sys/class/devfreq/gpu-gpc-0/max_freq", ""]
    for number, name in enumerate(PRESETS):
        mask = 512 if number < 2 else 518
        lines += [
            f"< POWER_MODEL ID={number} NAME={name} >",
            f"GPU_POWER_GATING GPU_PG_MASK {mask}",
        ]
        lines += ["GPU MAX_FREQ -1", ""]
    return "\n".join([*lines, "< PM_CONFIG DEFAULT=1 >"])
