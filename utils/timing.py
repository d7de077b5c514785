"""Timing that holds on a noisy machine: contenders take turns, and the median speaks."""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch


class Clock:
    """Adds up seconds by what they are spent on: `with clock("data"): ...`; all is in `seconds`."""

    def __init__(self, seconds: dict[str, float] | None = None, now=time.perf_counter):
        self.seconds, self.now = dict(seconds or {}), now

    @contextmanager
    def __call__(self, what: str):
        """Count the time inside `with` as `what`, also if it ends in an error."""
        start = self.now()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + self.now() - start


def take_turns(
    contenders: dict[str, Callable[[], object]], runs: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Call each contender once a round, `runs` rounds after the warm-up; seconds of each call."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(warmup + runs):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: list[float]) -> tuple[float, float]:
    """Median, and spread: half the distance between the quartiles as a share of the median."""
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return quartiles[1], (quartiles[2] - quartiles[0]) / 2 / quartiles[1]


def peak_memory() -> int:
    """Most bytes this process has held: of the GPU if there is one, else of main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose getrusage counts what ran in this process before exec, too
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    import resource  # here: Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_apart(call: Callable[..., object], *args) -> int:
    """Bytes that call(*args) adds to the peak of a fresh process; call is a module's function."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_added, (call, args))


def peak_added(call, args) -> int:
    """Call, and tell by how much the peak of this process has grown."""
    before = peak_memory()
    call(*args)
    return peak_memory() - before
