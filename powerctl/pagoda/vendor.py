"""What vendors say that hardware reaches: boards in each number format, GPUs and CPUs in FP32."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from powerctl.boards import Board

# CUDA cores of a multiprocessor, by compute capability; others have 128
_CORES_PER_SM = {(6, 0): 64, (7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64}
_ZEN_5 = 26  # the first family of AMD's with two 512-bit units


@dataclass(frozen=True)
class VendorPeaks:
    """Peaks on paper; None where nothing says.

    Attributes
    ----------
    flops, bandwidth : float or None
        Per second, FLOP (operations, of integers) and bytes.
    source : str
        Where they are from.
    """

    flops: float | None = None
    bandwidth: float | None = None
    source: str = ""


UNKNOWN = VendorPeaks()


# The types of numbers by the formats that boards' peaks are of.
_FORMATS = {"float32": "fp32", "tf32": "tf32", "float16": "fp16", "int8": "int8"}


def board_peaks(board: Board, dtype: str = "float32") -> VendorPeaks:
    """Of a board's GPU and memory at their highest clocks, in a type of numbers.

    GPUs that take TF32 take bfloat16 as fast as float16; no board says more of others.
    """
    number_format = _FORMATS.get(dtype)
    if dtype == "bfloat16" and "tf32" in board.operations_per_gpu_cycle:
        number_format = "fp16"
    flops = number_format and board.peak_flops(number_format=number_format)
    return VendorPeaks(flops or None, board.peak_bandwidth(), f"{board.name} at MAXN, dense")


def gpu_peaks(properties: Any) -> VendorPeaks:
    """Of a GPU, from what torch says of its clocks, multiprocessors and memory bus."""
    per_sm = _CORES_PER_SM.get((properties.major, properties.minor), 128)
    clock_hz = 1e3 * getattr(properties, "clock_rate", 0)  # older releases of torch do not say
    cores = per_sm * properties.multi_processor_count
    bus_bytes = getattr(properties, "memory_bus_width", 0) / 8
    bandwidth = (
        2 * 1e3 * getattr(properties, "memory_clock_rate", 0) * bus_bytes
    )  # double data rate
    source = f"{cores} CUDA cores at {clock_hz / 1e9:.2f} GHz, as the driver says"
    return VendorPeaks(2 * cores * clock_hz or None, bandwidth or None, source)


def cpu_peaks(threads: int, root: Path = Path("/")) -> VendorPeaks:
    """An estimate for a CPU: threads, its clock, and the width of its vector units.

    The clock is the highest that Linux knows; a virtual machine knows only the base clock, so that
    more than this estimate may be reached.

    Parameters
    ----------
    threads : int
        How many cores run.
    root : Path
        Of the file system.
    """
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        return UNKNOWN
    per_cycle = _flop_per_cycle(text)
    clock_hz, what = _clock_hz(text, root)
    if not (per_cycle and clock_hz):
        return UNKNOWN
    source = (
        f"estimate: {threads} cores at {clock_hz / 1e9:.2f} GHz ({what}), {per_cycle} FLOP a cycle"
    )
    return VendorPeaks(threads * clock_hz * per_cycle, None, source)


def core_hz(root: Path = Path("/")) -> float:
    """The clock of a core now, where Linux tells it, else its highest; 0 where nothing is known."""
    try:
        now = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
        return 1e3 * int(now.read_text())
    except OSError:
        pass
    try:
        return _clock_hz((root / "proc/cpuinfo").read_text(), root)[0]
    except OSError:
        return 0.0


def cpu_name(root: Path = Path("/")) -> str:
    """The CPU's name, or its architecture's."""
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        text = ""
    return _field(text, "model name") or _field(text, "Model") or "CPU"


def _clock_hz(cpuinfo: str, root: Path) -> tuple[float, str]:
    try:
        limit = root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"
        return 1e3 * int(limit.read_text()), "its highest"
    except OSError:
        return 1e6 * float(_field(cpuinfo, "cpu MHz") or 0), "as /proc/cpuinfo says"


def _flop_per_cycle(cpuinfo: str) -> int:
    """FLOP of a core's vector units in a cycle; a fused multiply-add is two."""
    flags = set((_field(cpuinfo, "flags") or _field(cpuinfo, "Features")).split())
    amd = _field(cpuinfo, "vendor_id") == "AuthenticAMD"
    family = int(_field(cpuinfo, "cpu family") or 0)
    if "avx512f" in flags and not (amd and family < _ZEN_5):  # before, 512 bits took two cycles
        return 64
    if {"avx2", "fma"} <= flags:
        return 32
    if "avx" in flags:
        return 16
    if flags & {"asimd", "neon"}:  # two pipes of 128 bits, as in NVIDIA's Carmel and Arm's A78
        return 16
    return 8 if "sse2" in flags else 0


def _field(cpuinfo: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else ""
