"""Which device computes, in what precision, and how much memory it has taken."""

import ctypes
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TABLE = [  # the first row whose device is here: device, whether it has bfloat16, best dtype
    ("cuda", True, "bfloat16"),
    ("cuda", False, "float16"),
    ("mps", False, "float32"),
    ("cpu", False, "float32"),
]
COMPILERS = "c++", "g++", "clang++", "cl"
EMULATED, WORTH = 0.2, 1.5  # bfloat16_gain below which it is said, above which it is used
NO_MEMORY = "can't allocate memory", "not enough memory", "out of memory"


@dataclass(frozen=True)
class Device:
    """A device and the dtype of its matrix products; weights stay float32."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        """Context in which matrix products run in `dtype`; does nothing for float32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """GradScaler for float16, whose gradients would vanish unscaled; else switched off."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def move(self, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """A batch on this device; without waiting where its memory is pinned."""
        if self.device.type != "cuda":
            return tuple(t.to(self.device) for t in batch)
        return tuple(t.to(self.device, non_blocking=t.is_pinned()) for t in batch)

    def describe(self) -> str:
        """For people: `cpu (2 threads), float32`."""
        name = f"{torch.get_num_threads()} threads"
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        return f"{self.device} ({name}), {self.precision}"

    @property
    def precision(self) -> str:
        """The dtype as a setting has it: float32."""
        return str(self.dtype).removeprefix("torch.")

    def cost(self) -> str:
        """What bfloat16 costs on a CPU that only emulates it, in one line; else ""."""
        if self.device.type != "cpu" or self.dtype != torch.bfloat16:
            return ""
        if (gain := bfloat16_gain()) > EMULATED:
            return ""
        times = f"products take {1 / gain:.0f} x as long as float32"
        return f"bfloat16 is emulated on this CPU: {times}"


def found() -> dict[str, int]:
    """What this machine has: how many devices of each kind, and whether CUDA has bfloat16."""
    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    bfloat16 = bool(n) and torch.cuda.is_bf16_supported(False)
    mps = torch.backends.mps.is_available()
    return {"cuda": n, "bfloat16": int(bfloat16), "mps": int(mps), "cpu": 1}


def pick_device(
    device: str = "auto", dtype: str = "auto", has: dict[str, int] | None = None
) -> Device:
    """Choose device and dtype by `TABLE`, as far as they are "auto"; `has` is as `found` gives.

    Raises ValueError for a device this machine lacks, or float16 where no GradScaler runs.
    """
    has = found() if has is None else has
    if device == "auto":
        device = next(kind for kind, _, _ in TABLE if has[kind])
    try:
        where = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device!r} is unknown; use auto, cpu, cuda or mps") from None
    if (where.index or 0) >= has.get(where.type, 0):
        raise ValueError(f"device={device} is not on this machine; use --device cpu or auto")
    if dtype == "auto":
        needs = {(kind, b): best for kind, b, best in TABLE}
        dtype = needs[where.type, bool(has["bfloat16"]) and where.type == "cuda"]
    if dtype == "float16" and where.type != "cuda":
        raise ValueError(f"dtype=float16 needs CUDA, not {where.type}; use bfloat16 or float32")
    if where.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for what stays float32, as nanoGPT does
    return Device(where, DTYPES[dtype])


@cache
def bfloat16_gain() -> float:
    """How many times as fast as float32 this CPU multiplies in bfloat16, by trial: 0.03, 2, 5.

    Products of 128 x 128 tell an emulation, in 30 ms. On several cores they are too small to gain
    from AMX, so without it those of 512 x 512 decide.
    """
    gain = 0.0
    for n in (128, 512):
        x = torch.randn(n, n, generator=torch.Generator().manual_seed(0))
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(6):  # in turn, and the fastest counts: other programs may run here, too
            for y, times in zip((x, x.bfloat16()), seconds, strict=True):
                start = time.perf_counter()
                y @ y
                times.append(time.perf_counter() - start)
        gain = min(seconds[0]) / min(seconds[1])
        if gain < EMULATED:
            break
    return gain


def fastest(device: Device, gain: Callable[[], float] = bfloat16_gain) -> Device:
    """The same device, but a CPU in bfloat16 if that has such a gain: to train with dtype=auto."""
    real = device.device.type == "cpu" and gain() > WORTH
    return replace(device, dtype=torch.bfloat16) if real else device


def cannot_compile(device: torch.device) -> str:
    """What torch.compile lacks here; "" if nothing."""
    if device.type != "mps" and not any(map(shutil.which, COMPILERS)):
        return "no C++ compiler found"
    if device.type == "cuda" and not find_spec("triton"):
        return "no triton, which Windows lacks"
    return ""


def compiled(model: nn.Module, device: torch.device, say: Callable[[str], object]) -> Any:
    """torch.compile the model, or give it back where that cannot be; `say` is called with which."""
    if why := cannot_compile(device):
        say(f"compile off: {why}, so the model runs eager")
        return model
    say("compile on: the first steps take a while")
    return torch.compile(model)


def out_of_memory(e: BaseException) -> bool:
    """Whether an error says that memory is used up: CUDA's, torch's on the CPU, NumPy's."""
    if isinstance(e, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(e, RuntimeError) and any(word in str(e) for word in NO_MEMORY)


@contextmanager
def memory_advice(batch_size: int, accum: int) -> Iterator[None]:
    """Turn an error for want of memory into a ValueError with the settings to change."""
    try:
        yield
    except (RuntimeError, MemoryError) as e:
        if not out_of_memory(e):
            raise
        B, smaller = batch_size, ""
        if B > 1:
            smaller = f"--batch_size {math.ceil(B / 2)} with --accum {2 * accum}, or "
        raise ValueError(f"out of memory at batch_size={B}; try {smaller}--recompute") from e


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of what a step frees for the next step; elsewhere, do nothing.

    It gives the end of the heap back to the system as soon as a step has freed its activations,
    and the next step waits while each page is mapped and cleared anew. Blocks of 32 MiB and more
    are the system's as before.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none
        libc.mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD: it would be 128 KiB once the other is set
        libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD


def wait() -> None:
    """Let a GPU finish, if there is one: its calls return before their work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()


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
