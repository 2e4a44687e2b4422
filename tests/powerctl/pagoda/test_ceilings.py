"""Ceilings are the best of what was measured; kernels need what they say; files come back."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from powerctl.accelerator import Accelerator
from powerctl.boards import load_board
from powerctl.devices.meters import Meter
from powerctl.errors import InvalidInput
from powerctl.pagoda.ceilings import Ceilings, KernelRun
from powerctl.pagoda.counting import count_model
from powerctl.pagoda.microbenchmarks import (
    DTYPES,
    Sizes,
    formats_of,
    kernels,
    measure_ceilings,
    sizes_for,
)
from powerctl.pagoda.vendor import board_peaks, cpu_peaks, gpu_peaks

TINY = Sizes(stream=4096, side=64, inner=(1, 8), square=64)


def made(slow=1.0, energy=True) -> Ceilings:
    """Kernels of 1 TFLOP/s, 100 GB/s, 2 pJ/FLOP, 50 pJ/B and 10 W; the mixed ones slower."""
    runs = []
    for index, intensity in enumerate((0.1, 0.5, 2, 8, 20, 200)):
        flop, dram_bytes = 10**9, round(10**9 / intensity)
        kind = "stream" if intensity < 0.2 else "product"
        time_s = max(flop / 1e12, dram_bytes / 1e11) * (slow if 0 < index < 5 else 1)
        energy_j = 2e-12 * flop + 50e-12 * dram_bytes + 10 * time_s
        runs.append(
            KernelRun(f"k{index}", kind, flop, dram_bytes, time_s, energy_j if energy else None)
        )
    return Ceilings("cuda", "a GPU", "float32", 1, "a meter", tuple(runs))


def test_the_ceilings_are_the_best_of_what_ran():
    found = made(slow=2.0)
    assert found.peak_flops == pytest.approx(1e12)
    assert found.peak_bandwidth == pytest.approx(1e11)


def test_the_roofline_is_checked_on_kernels_that_did_not_make_it():
    found = made(slow=2.0)
    assert [run.name for run in found.mixed] == ["k1", "k2", "k3", "k4"]
    np.testing.assert_allclose(found.attained(found.mixed), 0.5)


def test_energy_is_fitted_where_every_kernel_was_metered():
    np.testing.assert_allclose(made().energy, (2e-12, 50e-12, 10), rtol=1e-6)
    assert made(energy=False).energy is None


def test_a_file_holds_everything(tmp_path):
    path = tmp_path / "ceilings.json"
    made().save(path)
    held = json.loads(path.read_text())
    assert held["dtype"] == "float32"
    assert tuple(KernelRun(**run) for run in held["runs"]) == made().runs
    with pytest.raises(InvalidInput, match="cannot be written"):
        made().save(tmp_path / "no folder" / "c.json")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_kernel_needs_the_flop_and_bytes_that_it_says(dtype):
    """By the other way of counting, which watches the operators that run."""

    class Running(torch.nn.Module):
        def __init__(self, kernel):
            super().__init__()
            self.kernel = kernel

        def forward(self, x):
            return self.kernel.run()

    for kernel in kernels(Accelerator(), dtype, TINY):
        counts = count_model(Running(kernel), torch.empty(1), compute=True)
        assert counts.dram_bytes == kernel.dram_bytes, kernel.name
        scaled = kernel.name == "triad"  # that way of counting takes no notice of a sum's factor
        assert counts.flop * (2 if scaled else 1) == kernel.flop, kernel.name


class CountingMeter(Meter):
    """A joule for every look at it."""

    name = "one joule a look"

    def __init__(self):
        self.looks = 0

    def energy_j(self):
        self.looks += 1
        return float(self.looks)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_measuring_gives_a_positive_time_and_energy_of_every_kernel(dtype):
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    seen = []
    found = measure_ceilings(
        Accelerator(),
        dtype=dtype,
        seconds=0.002,
        threads=1,
        sizes=TINY,
        meter=CountingMeter(),
        progress=lambda *progress: seen.append(progress),
    )
    assert len(found.runs) == TINY.n_kernels == 5
    assert [done for _, done, _ in seen] == list(range(5))
    assert all(run.time_s > 0 and run.energy_j > 0 for run in found.runs)
    assert found.peak_flops > 0 and found.peak_bandwidth > 0
    assert (found.threads, found.dtype, found.meter) == (1, dtype, CountingMeter.name)
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before


def test_without_a_meter_no_energy_is_claimed():
    found = measure_ceilings(Accelerator(), seconds=0.001, sizes=TINY)
    assert {run.energy_j for run in found.runs} == {None} and found.energy is None


def test_an_unknown_type_is_refused():
    with pytest.raises(InvalidInput, match="--dtype is one of float32"):
        measure_ceilings(Accelerator(), dtype="int4", sizes=TINY)


def test_a_cpu_has_no_tensor_cores():
    with pytest.raises(InvalidInput, match="--tf32 is of a GPU's float32"):
        measure_ceilings(Accelerator(), tf32=True, sizes=TINY)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_take_the_memory_that_was_asked_for(dtype):
    sizes = sizes_for(Accelerator(), DTYPES[dtype], array_mib=8)
    assert sizes.stream * DTYPES[dtype].itemsize == 8 * 2**20
    assert 0.8 < sizes.side**2 / sizes.stream <= 1


def test_arrays_do_not_fit_the_cache():
    assert 4 * sizes_for(Accelerator(), torch.float32).stream >= 64 * 2**20


def test_a_boards_peaks_are_those_of_its_highest_clocks():
    peaks = board_peaks(load_board("orin-agx"))
    assert peaks.flops == pytest.approx(5.33e12, rel=1e-3)
    assert peaks.bandwidth == pytest.approx(204.7e9, rel=1e-3)


def test_a_gpus_peaks_follow_from_what_its_driver_says():
    orin = SimpleNamespace(major=8, minor=7, multi_processor_count=16, clock_rate=1_300_500)
    peaks = gpu_peaks(orin)
    assert peaks.flops == pytest.approx(5.33e12, rel=1e-3) and peaks.bandwidth is None
    a100 = SimpleNamespace(
        major=8,
        minor=0,
        multi_processor_count=108,
        clock_rate=1_410_000,
        memory_clock_rate=1_215_000,
        memory_bus_width=5120,
    )
    assert gpu_peaks(a100).flops == pytest.approx(19.5e12, rel=0.01)
    assert gpu_peaks(a100).bandwidth == pytest.approx(1555e9, rel=0.01)


@pytest.mark.parametrize(
    ("cpuinfo", "per_cycle"),
    [
        ("vendor_id : GenuineIntel\ncpu family : 6\nflags : sse2 avx avx2 fma avx512f", 64),
        ("vendor_id : AuthenticAMD\ncpu family : 25\nflags : sse2 avx avx2 fma avx512f", 32),
        ("vendor_id : AuthenticAMD\ncpu family : 26\nflags : sse2 avx avx2 fma avx512f", 64),
        ("vendor_id : GenuineIntel\ncpu family : 6\nflags : sse2 avx avx2 fma", 32),
        ("vendor_id : GenuineIntel\ncpu family : 6\nflags : sse2", 8),
        ("Features : fp asimd evtstrm", 16),
    ],
)
def test_a_cpus_peak_is_estimated_from_clock_and_vector_units(tmp_path, cpuinfo, per_cycle):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo.replace(" :", "\t:") + "\ncpu MHz\t\t: 2000\n")
    peaks = cpu_peaks(4, tmp_path)
    assert peaks.flops == 4 * 2e9 * per_cycle and "estimate" in peaks.source
    clock = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"
    clock.parent.mkdir(parents=True)
    clock.write_text("3000000\n")
    assert cpu_peaks(4, tmp_path).flops == 4 * 3e9 * per_cycle


def test_of_an_unknown_cpu_no_peak_is_claimed(tmp_path):
    assert cpu_peaks(4, tmp_path).flops is None


def test_a_boards_peak_is_that_of_the_type_of_numbers():
    orin, xavier = map(load_board, ("orin-agx", "xavier-agx"))
    peaks = [board_peaks(orin, name).flops for name in ("float32", "tf32", "bfloat16", "int8")]
    assert np.divide(peaks, peaks[0]).tolist() == [1, 4, 8, 16]
    assert board_peaks(orin, "float64").flops is None
    assert board_peaks(xavier, "bfloat16").flops is None


def test_products_of_integers_count_their_wide_results():
    found = list(kernels(Accelerator(), torch.int8, TINY))
    *_, square = found
    assert square.name == "product 64x64x64" and square.flop == 2 * 64**3
    assert square.dram_bytes == 64 * 64 * (1 + 1 + 4)
    assert min(sizes_for(Accelerator(), torch.int8).inner) == 8


def test_a_cpu_is_measured_in_what_it_multiplies():
    assert [dtype for dtype, _ in formats_of(Accelerator())] == ["float32", "bfloat16", "int8"]
