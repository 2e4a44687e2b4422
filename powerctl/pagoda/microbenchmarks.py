"""Kernels of known FLOP and bytes, timed on a device with PyTorch.

Copies and triads stream through memory. The product of an (m, k) and a (k, n) matrix does 2 m n k
FLOP on mk + kn + mn elements: with m and n large, its inner dimension k sets the intensity.
Integers of 8 bits are multiplied into sums of 32; each operation counts as a FLOP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from powerctl.accelerator import Accelerator, synchronise
from powerctl.devices.meters import Meter, NoMeter
from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.pagoda.ceilings import Ceilings, KernelRun, Kind
from powerctl.pagoda.vendor import UNKNOWN, VendorPeaks, cpu_name, cpu_peaks, gpu_peaks

DTYPES = {
    name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64", "int8")
}

_SAMPLE_S = 0.01  # calls timed together, so that starting and awaiting them does not count
_LEAST_SAMPLES = 3
_MIB = 2**20
_AMPERE = 8  # the compute capability from which on tensor cores take TF32 and bfloat16
_WHOLE_FROM = 8  # products of integers have inner dimensions of multiples of it
_INNER = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Sizes:
    """How large the kernels are; what streams, and a product's result, must not fit a cache.

    Attributes
    ----------
    stream : int
        Elements of an array that streams.
    side : int
        Rows and columns of the result of products with a short inner dimension.
    inner : tuple of int
        Those inner dimensions.
    square : int
        Rows and columns of the product of two square matrices.
    """

    stream: int
    side: int
    inner: tuple[int, ...]
    square: int

    @property
    def n_kernels(self) -> int:
        """How many kernels there are."""
        return 3 + len(self.inner)


def sizes_for(there: Accelerator, dtype: torch.dtype, array_mib: int | None = None) -> Sizes:
    """Sizes such that arrays take so many MiB: by default four times the last cache, at least 64.

    A GPU's products have more to do.
    """
    array_bytes = max(64 * _MIB, 4 * _cache_bytes(there)) if array_mib is None else array_mib * _MIB
    elements = array_bytes // dtype.itemsize
    side = int(elements**0.5) // 64 * 64
    inner: tuple[int, ...] = (*_INNER, 1024) if there.is_gpu else _INNER
    square = 4096 if there.is_gpu else 2048
    if dtype == torch.int8:
        inner = tuple(k for k in inner if k >= _WHOLE_FROM)
    return Sizes(elements, side, inner, min(square, side))


def _cache_bytes(there: Accelerator) -> int:
    if there.is_gpu:
        return int(getattr(_gpu(there), "L2_cache_size", 0))
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((1024 * int(size.read_text().strip().rstrip("K")) for size in sizes), default=0)


@dataclass(frozen=True)
class Kernel:
    """Something to run, and what it needs."""

    name: str
    kind: Kind
    flop: int
    dram_bytes: int
    run: Callable[[], object]


def kernels(there: Accelerator, dtype: torch.dtype, sizes: Sizes) -> Iterator[Kernel]:
    """The kernels from low intensity to high, each with its arrays as its turn comes."""

    def array(*shape: int) -> Tensor:
        if dtype == torch.int8:
            return torch.randint(-128, 128, shape, device=there.device, dtype=dtype)
        return torch.rand(shape, device=there.device).to(dtype)

    yield from _streams(*(array(sizes.stream) for _ in range(3)))
    shapes = [(sizes.side, k) for k in sizes.inner] + [(sizes.square, sizes.square)]
    for m, k in shapes:
        yield _product(array(m, k), array(k, m))


def _streams(a: Tensor, b: Tensor, c: Tensor) -> Iterator[Kernel]:
    yield Kernel("copy", "stream", 0, 2 * a.nbytes, lambda: c.copy_(a))
    triad = partial(torch.add, a, b, alpha=3, out=c)
    yield Kernel("triad", "stream", 2 * a.numel(), 3 * a.nbytes, triad)


def _product(left: Tensor, right: Tensor) -> Kernel:
    (m, k), n = left.shape, right.shape[1]
    is_whole = left.dtype == torch.int8
    multiply: Callable[..., object] = torch._int_mm if is_whole else torch.mm
    out = left.new_empty(m, n, dtype=torch.int32 if is_whole else None)
    name = f"product {m}x{k}x{n}"
    dram_bytes = left.nbytes + right.nbytes + out.nbytes
    run = partial(multiply, left, right, out=out)
    return Kernel(name, "product", 2 * m * n * k, dram_bytes, run)


def formats_of(there: Accelerator) -> tuple[tuple[str, bool], ...]:
    """The types of numbers that networks run in on a device, and whether products round to TF32.

    On a GPU: what its CUDA cores and, from Volta on, its tensor cores multiply.
    """
    if not there.is_gpu:
        return ("float32", False), ("bfloat16", False), ("int8", False)
    single = ("float32", False)
    if _gpu(there).major < _AMPERE:
        return single, ("float16", False), ("int8", False)
    return single, ("float32", True), ("bfloat16", False), ("float16", False), ("int8", False)


def measure_ceilings(
    there: Accelerator,
    *,
    dtype: str = "float32",
    tf32: bool = False,
    seconds: float = 0.5,
    threads: int | None = None,
    sizes: Sizes | None = None,
    meter: Meter | None = None,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Ceilings:
    """Run the kernels on a device in the power mode that it is in.

    Parameters
    ----------
    there : Accelerator
        What runs them.
    dtype : str
        One of `DTYPES`.
    tf32 : bool
        Let tensor cores round the inputs of single-precision products.
    seconds : float
        How long each kernel runs; meters of energy need a second or more.
    threads : int, optional
        Of the CPU, by default those that torch uses.
    sizes : Sizes, optional
        By default `sizes_for` the device.
    meter : Meter, optional
        What counts energy, by default nothing does.
    progress : callable
        Told the name of the kernel that is to run, how many have run, and how many there are.

    Raises
    ------
    DeviceUnavailable
        If it has not the memory.
    """
    if dtype not in DTYPES:
        raise InvalidInput(f"--dtype is one of {', '.join(DTYPES)}, not {dtype!r}")
    if tf32 and not (there.is_gpu and dtype == "float32"):
        raise InvalidInput(f"--tf32 is of a GPU's float32 products, not of {dtype} on {there.name}")
    meter = meter or NoMeter()
    sizes = sizes or sizes_for(there, DTYPES[dtype])
    runs: list[KernelRun] = []
    with _settings(threads, tf32), torch.inference_mode():
        used = torch.get_num_threads()
        try:
            for kernel in kernels(there, DTYPES[dtype], sizes):
                progress(kernel.name, len(runs), sizes.n_kernels)
                runs.append(_timed(kernel, there, seconds, meter))
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceUnavailable(f"{there.name} has not the memory: {error}") from None
    return Ceilings(
        device=there.device.type,
        hardware=torch.cuda.get_device_name(there.device) if there.is_gpu else cpu_name(),
        dtype="tf32" if tf32 else dtype,
        threads=used,
        meter=meter.name,
        runs=tuple(runs),
        vendor=_own_peaks(there, used) if dtype == "float32" and not tf32 else UNKNOWN,
    )


def _timed(kernel: Kernel, there: Accelerator, seconds: float, meter: Meter) -> KernelRun:
    """Median time and mean energy of calls, after a fifth of the time to warm up."""
    calls, warm = 1, time.perf_counter() + seconds / 5
    once_s = _seconds(kernel, there, calls)
    while time.perf_counter() < warm:
        once_s = _seconds(kernel, there, calls)
    calls = max(1, round(min(_SAMPLE_S, seconds) / max(once_s, 1e-7)))
    samples: list[float] = []
    start_j, until = meter.energy_j(), time.perf_counter() + seconds
    while len(samples) < _LEAST_SAMPLES or time.perf_counter() < until:
        samples.append(_seconds(kernel, there, calls) / calls)
    energy_j = (meter.energy_j() - start_j) / (calls * len(samples))
    return KernelRun(
        kernel.name,
        kernel.kind,
        kernel.flop,
        kernel.dram_bytes,
        median(samples),
        energy_j if energy_j > 0 else None,
    )


def _seconds(kernel: Kernel, there: Accelerator, calls: int) -> float:
    """Seconds of calls of a kernel, timed together; the device is idle before and after."""
    start = time.perf_counter()
    for _ in range(calls):
        kernel.run()
    synchronise(there)
    return time.perf_counter() - start


@contextmanager
def _settings(threads: int | None, tf32: bool) -> Iterator[None]:
    """Threads, and products in full precision unless asked otherwise; and back."""
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads or before[0])
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def gpu_uuid(there: Accelerator) -> str | None:
    """Which GPU it is, for meters."""
    uuid = getattr(_gpu(there), "uuid", None) if there.is_gpu else None
    return None if uuid is None else str(uuid)


def _gpu(there: Accelerator) -> Any:
    """What torch says of the GPU; more in newer releases."""
    return torch.cuda.get_device_properties(there.device)


def _own_peaks(there: Accelerator, threads: int) -> VendorPeaks:
    return gpu_peaks(_gpu(there)) if there.is_gpu else cpu_peaks(threads)
