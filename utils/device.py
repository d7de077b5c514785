"""Where the numbers are made, and in what precision: one decision, said in one line."""

import shutil
from dataclasses import dataclass

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Device:
    """A device and the dtype of its matrix products; weights stay float32."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self):
        """Context in which matrix products run in `dtype`; does nothing for float32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self):
        """GradScaler for float16, whose gradients would vanish unscaled; else switched off."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def describe(self) -> str:
        """For people: `cpu (2 threads), float32`."""
        name = f"{torch.get_num_threads()} threads"
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        return f"{self.device} ({name}), {str(self.dtype).removeprefix('torch.')}"


def pick_device(device: str = "auto", dtype: str = "auto") -> Device:
    """Choose CUDA, else MPS, else CPU; on CUDA bfloat16, or float16 if it lacks that; else float32.

    Raises ValueError for a device this machine lacks, or float16 where no GradScaler runs.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        device = "cuda" if cuda else "mps" if mps else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device!r} is unknown; use auto, cpu, cuda or mps") from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}.get(found.type, 0)
    if (found.index or 0) >= count:
        raise ValueError(f"device={device} is not on this machine; use --device cpu or auto")
    if dtype == "auto":
        dtype = "float32"
        if found.type == "cuda":
            dtype = "bfloat16" if torch.cuda.is_bf16_supported(False) else "float16"
    if dtype == "float16" and found.type != "cuda":
        raise ValueError(f"dtype=float16 needs CUDA, not {found.type}; use bfloat16 or float32")
    if found.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for what stays float32, as nanoGPT does
    return Device(found, DTYPES[dtype])


def compiler(device: torch.device) -> bool:
    """Whether torch.compile has what it needs there: a C++ compiler on the CPU."""
    return device.type != "cpu" or any(map(shutil.which, ("c++", "g++", "clang++", "cl")))


def compiled(model, device: torch.device, say):
    """torch.compile the model, or give it back if there is no C++ compiler; `say` is told which."""
    if not compiler(device):
        say("compile off: no C++ compiler found, so the model runs eager")
        return model
    say("compile on: the first steps take a while")
    return torch.compile(model)
