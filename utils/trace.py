"""What a piece of work spends its time on: a trace for Perfetto, and the dearest operations."""

from collections.abc import Callable
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile

from utils.checkpoint import atomic
from utils.device import Device


@dataclass(frozen=True)
class Cost:
    """An operation, its own milliseconds without what it calls, and how often it was called."""

    name: str
    ms: float
    calls: int


def trace(call: Callable[[], object], path, device: Device) -> list[Cost]:
    """Call under torch.profiler and write a Chrome trace; gives all operations, dearest first.

    ui.perfetto.dev and chrome://tracing open the file; TensorBoard's profiler plugin its
    directory, if the name ends in .pt.trace.json.
    """
    cuda = device.device.type == "cuda"
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=kinds) as seen:
        call()
    atomic(path, lambda part: seen.export_chrome_trace(str(part)))
    own = "self_device_time_total" if cuda else "self_cpu_time_total"
    costs = [Cost(e.key, getattr(e, own) / 1e3, e.count) for e in seen.key_averages()]
    return sorted(costs, key=lambda cost: -cost.ms)
