"""Runs side by side: size, memory, speed, and how far their predictions are from the first's.

Letters: N positions, V tokens in the vocabulary, B rows that are written at once.
"""

import contextlib
import io
import math
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from data.text import read_text
from model import TinyGPT, few_rows, generate
from model.adapt.prune import zeros_of
from model.adapt.quant import count
from model.adapt.rounding import check_group
from tok import Tokenizer
from utils.bench.timing import peak_added, take_turns
from utils.compress.llama import WRITTEN, Llama, peers
from utils.compress.picture import draw_table
from utils.compress.quantized import Bits, compress, size_of
from utils.native import with_native
from utils.training.models import load_model, merged

TOKENS, WINDOW, PROMPT, ROWS = 4096, 1024, 256, 8
RUNS, SECONDS = 5, 60.0  # rounds of a race, and when it ends before that
WORTH = 1.05  # times the first run's speed, from which on a run counts as faster
SIZES, SPEEDS = ("params", "zeros", "MB", "peak MB"), ("tok/s", f"tok/s x{ROWS}", "prefill")
HEAD = ("", *SIZES, *SPEEDS, "ppl", "KL", "top-1", "greedy")


@dataclass(frozen=True)
class Nearness:
    """How near predictions are to a reference's: perplexity, KL (nats), share of equal top-1."""

    ppl: float
    kl: float
    top1: float


def nearness(reference: Tensor, logits: Tensor, targets: Tensor) -> Nearness:
    """Of log-probabilities (N,V) and targets (N,): KL is sum_v p (log p - log q), p the reference.

    Equal logits have KL 0 and top-1 1.
    """
    ppl = math.exp(float(F.nll_loss(logits, targets)))
    kl = max(0.0, float((reference.exp() * (reference - logits)).sum(-1).mean()))
    top1 = float((reference.argmax(-1) == logits.argmax(-1)).float().mean())
    return Nearness(ppl, kl, top1)


def scored_ids(file: Path, tokenizer: Tokenizer, T: int) -> Tensor:
    """The first TOKENS of a text and the one after, windows of T; ValueError for less than one."""
    ids = tokenizer.encode(read_text(file)[: 16 * TOKENS])[: TOKENS + 1]
    if len(ids) <= T:
        raise ValueError(f"{file} has {len(ids):,} tokens; a table needs more than {T:,}")
    return torch.tensor(ids[: (len(ids) - 1) // T * T + 1])


@torch.no_grad()
def log_probabilities(model: TinyGPT, ids: Tensor, T: int) -> Tensor:
    """Of the token after each of ids (N+1,), read in windows of T: (N,V)."""
    windows = ids[:-1].view(-1, 1, T)
    return torch.cat([F.log_softmax(model(window)[0][0].float(), -1) for window in windows])


def written(model: TinyGPT, prompts: Tensor) -> list[list[int]]:
    """WRITTEN likeliest tokens after prompts (B,T)."""
    steps = [ids.tolist() for ids in generate(model, prompts, WRITTEN, temperature=0)]
    return [list(row) for row in zip(*steps, strict=True)]


def equal_share(a: list[list[int]], b: list[list[int]]) -> float:
    """The mean share of a text up to the first token that differs: [[1, 2]], [[1, 3]] -> 0.5."""
    shares = []
    for one, other in zip(a, b, strict=True):
        pairs = enumerate(zip(one, other, strict=True))
        shares.append(next((i for i, (x, y) in pairs if x != y), len(one)) / len(one))
    return statistics.mean(shares)


def loaded(run: Path) -> TinyGPT:
    """A run's model, ready to write as sample.py has it."""
    return few_rows(with_native(merged(load_model(run)[0]).eval()))


def write_some(run: str) -> None:
    """Load a run and write; nothing where `run` is empty."""
    if run:
        written(loaded(Path(run)), torch.zeros(1, 8, dtype=torch.long))


def peak_of(run: Path) -> int:
    """Bytes that loading a run and writing add to the peak of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_added, (write_some, (str(run),), ("",)))


@torch.inference_mode()
def read(prompt: Tensor, model: TinyGPT) -> Tensor:
    """Logits after a prompt (1,T)."""
    return model.head(model.hidden_states(prompt)[:, -1])


class Ours:
    """A run's model, which does what the table measures; Llama does the same."""

    batches = True

    def __init__(self, run: Path) -> None:
        self.run, self.model = run, loaded(run)

    def write(self, prompts: Tensor) -> list[list[int]]:
        """WRITTEN likeliest tokens after prompts (B,T)."""
        return written(self.model, prompts)

    def read(self, prompt: Tensor) -> object:
        """Read a prompt (1,T)."""
        return read(prompt, self.model)

    def log_probabilities(self, ids: Tensor, T: int) -> Tensor:
        """Of the token after each of ids (N+1,), read in windows of T: (N,V)."""
        return log_probabilities(self.model, ids, T)

    def weights(self) -> tuple[str, str]:
        """How many there are, and the share of zeros among them."""
        return f"{count(self.model) / 1e6:.2f}M", f"{zeros_of(self.model):.0%}"

    def size(self) -> int:
        """Bytes of the weights."""
        return size_of(self.model)

    def peak(self) -> int:
        """Bytes that loading and writing add to a process."""
        return peak_of(self.run)


Contenders = dict[str, Ours | Llama]


def rates(contenders: Contenders, work: Callable[[Any], object], n: int) -> dict[str, float]:
    """Tokens per second of each, which take turns; n tokens a call."""
    calls = {name: partial(work, one) for name, one in contenders.items()}
    seconds = take_turns(calls, RUNS, warmup=1, limit=SECONDS)
    return {name: n / statistics.median(s) for name, s in seconds.items()}


def variants(run: Path, folder: Path) -> Iterator[Path]:
    """The run, and what it becomes in 8 and 4 bits, made in a folder; what does not fit is not."""
    yield run
    model = load_model(run)[0]
    widths = {m.in_features for m in model.blocks.modules() if isinstance(m, torch.nn.Linear)}
    for name, bits in {"int8": Bits(8), "int4-32": Bits(4, 32), "int4-64": Bits(4, 64)}.items():
        try:
            for width in widths if bits.bits == 4 else ():
                check_group(width, bits.group)
        except ValueError:
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            compress(run, folder / name, bits)
        yield folder / name


def table(runs: Sequence[Path], text: Path, llama: str | None = None) -> list[list[str]]:
    """Rows of the table, as HEAD says; of one run also what it becomes in 8 and 4 bits.

    `llama` is a Python that has llama.cpp, which gets rows of its own types of the first run.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        found = list(runs) if len(runs) > 1 else list(variants(runs[0], folder))
        models = {run.name: Ours(run) for run in found}
        T = min(WINDOW, *(one.model.config.block_size for one in models.values()))
        beside = stack.enter_context(peers(runs[0], llama, T, folder)) if llama else {}
        return rows_of({**models, **beside}, scored_ids(text, load_model(runs[0])[1], T), T)


def rows_of(contenders: Contenders, ids: Tensor, T: int) -> list[list[str]]:
    """A row for each; the first is what the others are compared with. ids (N+1,) are scored."""
    first = next(iter(contenders))
    prompts = ids[: ROWS * 16].view(ROWS, 16) if len(ids) > ROWS * 16 else ids[None, :4]
    prompt = ids[None, : min(PROMPT, T)]
    together = {name: one for name, one in contenders.items() if one.batches}
    one = rates(contenders, lambda c: c.write(prompts[:1]), WRITTEN)
    many = rates(together, lambda c: c.write(prompts), WRITTEN * len(prompts))
    prefill = rates(contenders, lambda c: c.read(prompt), prompt.numel())
    reference, texts, rows = None, None, []
    for name, model in contenders.items():
        logits, own = model.log_probabilities(ids, T), model.write(prompts)
        reference, texts = (logits, own) if reference is None else (reference, texts)
        near = nearness(reference, logits, ids[1:])
        slow = name != first and one[name] < WORTH * one[first]
        figures = [*model.weights(), f"{model.size() / 1e6:.1f}", f"{model.peak() / 1e6:.0f}"]
        figures += [f"{one[name]:.0f}", f"{many[name]:.0f}" if name in many else "-"]
        figures += [f"{prefill[name]:.0f}"]
        figures += [f"{near.ppl:.2f}", f"{near.kl:.4f}", f"{near.top1:.1%}"]
        figures += [f"{equal_share(texts or own, own):.0%}", "  not faster" * slow]
        rows.append([name, *figures])
    return rows


def print_table(
    runs: Sequence[Path], text: Path, llama: str | None = None, plot: Path | None = None
) -> None:
    """Print the table, and what its columns are; draw it to `plot`, if that is given."""
    rows = table(runs, text, llama)
    if plot is not None:
        draw_table(HEAD, rows, plot)
    width = max(len(row[0]) for row in rows)
    for row in (list(HEAD), *rows):
        print(f"{row[0]:{width}}" + "".join(f"{cell:>10}" for cell in row[1:]))
    cpu, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    print(
        f"\ntorch {torch.__version__}, {cpu}, {threads} threads; {text}, windows as for evaluation"
    )
    print(
        "MB weights; peak MB that loading and writing add to a process; medians of tok/s in turn;"
    )
    print("params, and zeros among the weights of the blocks' matrices, which buy no time;")
    print("KL in nats, top-1 and greedy (text up to the first other token) beside the first row")
