"""Our library in C++, built once for this machine, and used where it can be.

It is in the user's cache directory by the sum of what it was built from: its source, the compiler
and its flags, and the CPU. Only where it pays: on a CPU whose vectors multiply int8 (AVX-512 with
VNNI). With AVX2 alone it was no faster than torch's kernels.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import model
from model import TinyGPT
from model.adapt.layout import native
from model.adapt.quant import quantized_layers
from tok.cli import one_line
from utils.writing.terminal import note

SOURCE = Path(model.__file__).with_name("native.cpp")
FLAGS = "-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-w"
OFF = "LLM_TINY_NATIVE"  # 0: as if there were no compiler
SECONDS = 120


def compiler() -> str:
    """The C++ compiler: CXX, or what is usual; "" if there is none."""
    own = os.environ.get("CXX", "")
    found = (shutil.which(name) for name in ([own] if own else ["g++", "clang++", "c++"]))
    return next((path for path in found if path), "")


def cpu() -> str:
    """What tells this kind of CPU from another, as far as the system says it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    flags = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return platform.machine() + platform.processor() + "".join(flags[:1])


def worth() -> bool:
    """Whether this CPU multiplies integers of 8 bits in its vectors."""
    return "avx512_vnni" in cpu()


def cache_dir() -> Path:
    """Where programs keep what they can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-tiny"


def built(compiler: str, folder: Path, flags: tuple[str, ...] = FLAGS) -> Path:
    """The library's file, built if it is not there. OSError if that fails, in the compiler's words.

    `flags` are for other CPUs than this one.
    """
    text = SOURCE.read_bytes() + "\0".join((compiler, *flags, cpu())).encode()
    path = folder / f"native-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as new:
            made = Path(new) / path.name
            command = [compiler, *flags, str(SOURCE), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
            if done.returncode:
                lines = [x for x in done.stderr.splitlines() if "error" in x] or ["no word of why"]
                raise OSError(f"{compiler}: {lines[0].strip()}")
            os.replace(made, path)
    return path


@cache
def loaded() -> ctypes.CDLL | None:
    """The library; without it None, and a line that says so."""
    found = compiler()
    if os.environ.get(OFF) == "0" or not worth():
        return None
    if not found:
        note("no C++ compiler: weights in integers are multiplied by torch's kernels, more slowly")
        return None
    try:
        return ctypes.CDLL(str(built(found, cache_dir())))
    except (OSError, subprocess.SubprocessError) as e:
        note(f"no library in C++, so torch's slower kernels ({one_line(e)})")
        return None


def with_native(model: TinyGPT) -> TinyGPT:
    """The model, whose quantized layers on a CPU multiply by the library, if it can be had."""
    layers = quantized_layers(model).values()
    if layers and all(layer.q.is_cpu for layer in layers):
        native(model, loaded())
    return model
