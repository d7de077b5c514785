"""Timing that holds on a noisy machine: contenders take turns, and the median speaks."""

import math
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


def wait() -> None:
    """Let a GPU finish, if there is one: its calls return before their work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()


def take_turns(
    contenders: dict[str, Callable[[], object]],
    runs: int,
    warmup: int = 2,
    limit: float = math.inf,
    clock=time.perf_counter,
) -> dict[str, list[float]]:
    """Call each contender once a round, `runs` rounds after the warm-up; seconds of each call.

    After `limit` seconds of counted rounds there is no further one, but there are at least 3.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(warmup + runs):
        if i - warmup >= 3 and sum(map(sum, seconds.values())) >= limit:
            break
        for name, call in contenders.items():
            start = clock()
            call()
            wait()
            if i >= warmup:
                seconds[name].append(clock() - start)
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


def peak_apart(call: Callable[..., object], args: tuple, first: tuple) -> int:
    """Bytes that call(*args) adds to the peak of a fresh process; call is a module's function.

    It comes after call(*first), so that what torch loads at its first use does not count.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":  # imports torch once for all of them
        context.set_forkserver_preload([call.__module__, "torch._dynamo"])
    with context.Pool(1) as pool:
        return pool.apply(peak_added, (call, args, first))


def peak_added(call, args, first) -> int:
    """Call, and tell by how much the peak of this process has grown."""
    call(*first)
    before = peak_memory()
    call(*args)
    return peak_memory() - before
