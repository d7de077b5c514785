"""llama.cpp at work for `python -m utils.compress --table --llama PYTHON`: run by that PYTHON.

It needs the package llama-cpp-python there, and nothing of ours. Each line of its input is a job in
JSON, and gets one line of JSON back.
"""

import json
import re
import resource
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

Job = dict[str, Any]


def quantize(job: Job) -> None:
    """Write a GGUF file in another type."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{job['type']}")
    paths = job["source"].encode(), job["out"].encode()
    if llama_cpp.llama_model_quantize(*paths, params):
        raise RuntimeError(f"llama.cpp can't make {job['type']} of {job['source']}")


class Worker:
    """One model, and the jobs that it does."""

    def load(self, job: Job) -> None:
        """Load a file; T tokens are its context."""
        before = peak()
        threads = {"n_threads": job["threads"], "n_threads_batch": job["threads"]}
        size = {"n_ctx": job["T"], "n_batch": job["T"], "n_ubatch": 512}
        self.model = llama_cpp.Llama(job["path"], **threads, **size, verbose=False)
        self.all = False
        self.before = before

    def write(self, job: Job) -> list[int]:
        """The n likeliest tokens after ids."""
        self.read(job)
        found: list[int] = []
        for _ in range(job["n"]):
            logits = llama_cpp.llama_get_logits_ith(self.model.ctx, -1)
            found.append(int(np.ctypeslib.as_array(logits, (self.model.n_vocab(),)).argmax()))
            if len(found) < job["n"]:
                self.model.eval(found[-1:])
        return found

    def read(self, job: Job) -> None:
        """Read ids from the start."""
        self.model.reset()
        self.model.eval(job["ids"])

    def score(self, job: Job) -> None:
        """Save the logits (N,V) after each of ids, read in windows of T."""
        T, V = job["T"], self.model.n_vocab()
        out = np.lib.format.open_memmap(job["out"], "w+", np.float32, (len(job["ids"]), V))
        batch = llama_cpp.llama_batch_init(T, 0, 1)
        for start in range(0, len(job["ids"]), T):
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.model.ctx), True)
            for i, token in enumerate(job["ids"][start : start + T]):
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, i, 1
                batch.seq_id[i][0], batch.logits[i] = 0, 1
            batch.n_tokens = T
            if llama_cpp.llama_decode(self.model.ctx, batch):
                raise RuntimeError("llama.cpp can't read the text")
            logits = llama_cpp.llama_get_logits(self.model.ctx)
            out[start : start + T] = np.ctypeslib.as_array(logits, (T, V))
        out.flush()

    def peak(self, job: Job) -> int:
        """Bytes that have been added to the peak since before the file was loaded."""
        return peak() - self.before


def peak() -> int:
    """Peak memory of this process in bytes; getrusage on Linux counts who started it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Do jobs until there are no more."""
    worker = Worker()
    for line in sys.stdin:
        job = json.loads(line)
        does = quantize if job["do"] == "quantize" else getattr(worker, job["do"])
        print(json.dumps(does(job)), flush=True)


if __name__ == "__main__":
    main()
