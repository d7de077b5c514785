"""What a machine can do at best: products of matrices, copies, memory that is free."""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from utils.device import Device, wait

BOTH, HALF = {torch.bfloat16, torch.float16}, {torch.float16}
CARDS = [  # torch.cuda.get_device_name without "NVIDIA" and so on, dtypes, TFLOP/s: see card_peak
    (r"H200|H100 80GB HBM3", BOTH, 989),
    (r"H100 PCIe", BOTH, 756),
    (r"A100-(SXM4|PCIE)-(40|80)GB|A100 80GB PCIe", BOTH, 312),
    (r"A10", BOTH, 125),
    (r"L40S", BOTH, 362),
    (r"L4", BOTH, 121),
    (r"RTX 4090", BOTH, 165),
    (r"RTX 3090", BOTH, 71),
    (r"V100S-PCIE-32GB", HALF, 130),
    (r"V100-SXM2-(16|32)GB", HALF, 125),
    (r"V100-PCIE-(16|32)GB", HALF, 112),
    (r"T4", HALF, 65),
]


def card_peak(name: str, dtype: torch.dtype) -> float | None:
    """FLOP/s that NVIDIA names for a card's dense matrix products; None if it is not recognised.

    From its datasheets of H200, H100, A100, A10, L40S, L4, V100 and T4 (where those give figures
    with sparsity, half of that), and the appendices of its Ada and GA102 whitepapers for RTX 4090
    and 3090 (sums in float32). The whole name must fit: a laptop's 4090 and a slice of an A100 are
    other cards. `card_peak("NVIDIA H200", torch.bfloat16)` -> 989e12.
    """
    short = re.sub(r"^(NVIDIA )?(GeForce |Tesla )?", "", name)
    for pattern, dtypes, peak in CARDS:
        if dtype in dtypes and re.fullmatch(pattern, short):
            return peak * 1e12
    return None


def best_of(
    call: Callable[[], object], runs: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of the fastest of so many calls, after one that does not count."""
    call()
    seconds = []
    for _ in range(runs):
        wait()
        start = clock()
        call()
        wait()
        seconds.append(clock() - start)
    return min(seconds)


def matmul_peak(
    device: Device, n: int, runs: int = 10, clock: Callable[[], float] = time.perf_counter
) -> float:
    """FLOP/s of the best of so many products of two n x n matrices, 2 n^3 operations each."""
    a = torch.ones(n, n, device=device.device, dtype=device.dtype)
    return 2 * n**3 / best_of(lambda: a @ a, runs, clock)


def copy_peak(
    device: Device, n: int, runs: int = 10, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Bytes a second, read and written, of the best of so many copies of n bytes."""
    source = torch.ones(n // 4, device=device.device)
    target = torch.empty_like(source)
    return 2 * n / best_of(lambda: target.copy_(source), runs, clock)


@dataclass(frozen=True)
class Limits:
    """The most a device does: products in FLOP/s, by a datasheet or measured; copies in bytes/s."""

    flops: float
    named: bool  # a share of a named peak is an MFU (PaLM, appendix B), one of a measured is not
    copy: float


def limits_of(device: Device) -> Limits:
    """The limits of a device; takes about a second."""
    cuda, peak = device.device.type == "cuda", None
    if cuda:
        peak = card_peak(torch.cuda.get_device_name(device.device), device.dtype)
    flops = peak or matmul_peak(device, 8192 if cuda else 2048)
    return Limits(flops, peak is not None, copy_peak(device, 2**28))


def free_memory(device: Device) -> float:
    """Bytes that a device has free; inf where the system does not tell."""
    if device.device.type == "cuda":
        return torch.cuda.mem_get_info(device.device)[0]
    info = Path("/proc/meminfo")
    if not info.exists():
        return math.inf
    free = next(line for line in info.read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(free.split()[1]) * 1024
