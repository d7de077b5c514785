"""What a piece of work spends its time on: a trace for Perfetto, the most expensive operations."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from model import few_rows
from tok.files import replacing
from utils.bench.races import SHAPES, WRITE
from utils.bench.workloads import gpt, stepper, writer
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
    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * cuda
    with torch.profiler.profile(activities=kinds) as profiler:
        call()
    with replacing(path) as part:
        profiler.export_chrome_trace(str(part))
    own = "self_device_time_total" if cuda else "self_cpu_time_total"
    costs = [Cost(e.key, getattr(e, own) / 1e3, e.count) for e in profiler.key_averages()]
    return sorted(costs, key=lambda cost: -cost.ms)


def profile(directory: Path, device: Device) -> None:
    """Trace 5 training steps and 64 written tokens; print where, and what was most expensive."""
    shape, (wide, _) = SHAPES["4x128"], WRITE["4x128"]
    step = stepper(gpt(shape), shape, device)
    works = {
        "train": lambda: [step() for _ in range(5)],
        "write": writer(few_rows(gpt(wide).to(device.device)).eval(), 1, min(64, wide[3] - 1)),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, call in works.items():
        call()  # the first time, memory is asked for
        path = directory / f"{name}.pt.trace.json"
        costs = trace(call, path, device)
        whole = sum(cost.ms for cost in costs)
        print(f"\n{path}\n{'most expensive operations':60}{'own time':>12}{'share':>8}{'calls':>8}")
        for cost in costs[:10]:
            print(f"{cost.name[:58]:60}{cost.ms:>9.2f} ms{cost.ms / whole:>8.0%}{cost.calls:>8,}")
    print("\nopen them at https://ui.perfetto.dev, or the directory with TensorBoard's profiler")
