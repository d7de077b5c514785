"""llama.cpp beside our runs: files of several types made of a run, and a process for each.

`PYTHON` is an interpreter that has the package llama-cpp-python; it runs llama_worker.py.
"""

import contextlib
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from utils.hub.exporter import export

TYPES = "Q8_0", "Q4_1", "Q4_0"
WRITTEN = 32  # tokens of a text
WORKER = Path(__file__).with_name("llama_worker.py")


class Llama:
    """llama.cpp in a process of its own. ValueError where it ends, or cannot begin."""

    batches = False  # its batches are not measured here

    def __init__(self, python: str) -> None:
        self.python, self.file, self.added = python, Path(), 0
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        pipes["stderr"] = subprocess.DEVNULL
        try:
            self.process = subprocess.Popen([python, str(WORKER)], **pipes, text=True)
        except OSError as e:
            raise ValueError(f"--llama {python}: {e.strerror}") from None

    def ask(self, do: str, **job: Any) -> Any:
        """Have a job done, and give what came of it."""
        assert self.process.stdin
        assert self.process.stdout
        try:
            print(json.dumps({"do": do, **job}), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            cure = "is llama-cpp-python there?"
            raise ValueError(f"--llama {self.python} has ended at {do!r}; {cure}") from None

    def load(self, file: Path, T: int) -> "Llama":
        """Load a file, with a context of T tokens, and write, for the memory that this takes."""
        self.ask("load", path=str(file), T=T, threads=torch.get_num_threads())
        self.file = file
        self.ask("write", ids=[0] * 8, n=WRITTEN)
        self.added = int(self.ask("peak"))
        return self

    def write(self, prompts: Tensor) -> list[list[int]]:
        """The WRITTEN likeliest tokens after each of prompts (B,T), one by one."""
        return [self.ask("write", ids=ids, n=WRITTEN) for ids in prompts.tolist()]

    def read(self, prompt: Tensor) -> object:
        """Read a prompt (1,T)."""
        return self.ask("read", ids=prompt[0].tolist())

    def log_probabilities(self, ids: Tensor, T: int) -> Tensor:
        """Of the token after each of ids (N+1,), read in windows of T: (N,V)."""
        file = self.file.with_suffix(".npy")
        self.ask("score", ids=ids[:-1].tolist(), T=T, out=str(file))
        found = F.log_softmax(torch.from_numpy(np.load(file)), -1)
        file.unlink()
        return found

    def weights(self) -> tuple[str, str]:
        """Those of the run; not counted again."""
        return "-", "-"

    def size(self) -> int:
        """Bytes of the file."""
        return self.file.stat().st_size

    def peak(self) -> int:
        """Bytes that loading and writing have added to its process."""
        return self.added

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def files_of(run: Path, python: str, folder: Path) -> dict[str, Path]:
    """Files of a run as llama.cpp's quantizer makes them, by type."""
    whole = folder / "whole.gguf"
    with contextlib.redirect_stdout(io.StringIO()):
        export(run, "gguf", str(whole), dtype="F32")
    llama, found = Llama(python), {}
    with contextlib.closing(llama):
        for kind in TYPES:
            found[kind] = folder / f"{kind}.gguf"
            llama.ask("quantize", source=str(whole), out=str(found[kind]), type=kind)
    return found


@contextlib.contextmanager
def peers(run: Path, python: str, T: int, folder: Path) -> Iterator[dict[str, Llama]]:
    """llama.cpp with each of the files of a run, ready to write."""
    with contextlib.ExitStack() as stack:
        found = {}
        for kind, file in files_of(run, python, folder).items():
            llama = stack.enter_context(contextlib.closing(Llama(python)))
            found[f"llama.cpp {kind}"] = llama.load(file, T)
        yield found
