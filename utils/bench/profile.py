"""What a piece of work spends its time on: a trace for Perfetto, the most expensive operations."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from tok.files import replacing
from utils.device import Device


@dataclass(frozen=True)
class Cost:
    """An operation, its own milliseconds without what it calls, and how often it was called."""

    name: str
    ms: float
    calls: int


def trace(call: Callable[[], object], path: Path, device: Device) -> list[Cost]:
    """Call under torch.profiler and write a Chrome trace; all operations, most expensive first.

    ui.perfetto.dev and chrome://tracing open the file; TensorBoard's profiler plugin its
    directory, if the name ends in .pt.trace.json.
    """
    cuda = device.device.type == "cuda"
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=kinds) as profiler:
        call()
    with replacing(path) as part:
        profiler.export_chrome_trace(str(part))
    own = "self_device_time_total" if cuda else "self_cpu_time_total"
    costs = [Cost(e.key, getattr(e, own) / 1e3, e.count) for e in profiler.key_averages()]
    return sorted(costs, key=lambda cost: -cost.ms)
