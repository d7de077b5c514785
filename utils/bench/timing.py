"""Timing on a noisy machine: contenders take turns, and medians count."""

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from utils.device import peak_memory, wait

Args = tuple[Any, ...]


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    runs: int,
    warmup: int = 2,
    limit: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
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


def peak_apart(call: Callable[..., object], args: Args, first: Args) -> int:
    """Bytes that call(*args) adds to the peak of a fresh process; call is a module's function.

    It comes after call(*first), so that what torch loads at its first use does not count.
    """
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":  # imports torch once for all of them
        context.set_forkserver_preload([call.__module__, "torch._dynamo"])
    with context.Pool(1) as pool:
        return pool.apply(peak_added, (call, args, first))


def peak_added(call: Callable[..., object], args: Args, first: Args) -> int:
    """Call, and tell by how much the peak of this process has grown."""
    call(*first)
    before = peak_memory()
    call(*args)
    return peak_memory() - before
