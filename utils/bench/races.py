"""The races that bench.py runs: who takes part, at what, and what a time means.

Each takes the flags, the device, its limits and `say`, for messages on the way.
"""

import copy
import itertools
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import tok
from data.text import read_text
from model import TinyGPT, few_rows, generate
from model.attention import AUTO
from model.generation.compiled import CompiledStep
from utils.bench.busy import STEPS, busy_loops, contenders
from utils.bench.kinds import other_kinds
from utils.bench.limits import Limits, free_memory
from utils.bench.peers import (
    NanoGPT,
    SameInTransformers,
    Transformers,
    learn_with_tokenizers,
    same_in_transformers,
    transformers_installed,
)
from utils.bench.serving import (
    CLIENTS,
    LOADS,
    WRITTEN,
    Client,
    at_once,
    in_turn,
    served,
    told,
    under_load,
)
from utils.bench.timing import summary, take_turns
from utils.bench.workloads import Shape, gpt, peak_of_steps, stepper, writer
from utils.device import Device
from utils.native import with_native
from utils.runs import run_dir
from utils.training.models import in_floats, load_model, merged

SHAPES: dict[str, Shape] = {  # name: (layers, heads, d_model, block_size, batch_size, vocab_size)
    "4x128": (4, 4, 128, 64, 12, 65),
    "6x384": (6, 6, 384, 256, 8, 65),
    "12x768": (12, 12, 768, 256, 4, 50257),
}
BIG, NEEDS = "12x768", 4e9  # GPT-2 small, and the bytes that each contender may need for it
WRITE: dict[str, tuple[Shape, tuple[int, int]]] = (
    {  # the same, and how many tokens are written: alone, beside others
        "4x128": ((4, 4, 128, 256, 1, 65), (255, 255)),
        "6x384": ((6, 6, 384, 256, 1, 65), (255, 255)),
        "12x768": ((12, 12, 768, 1024, 1, 50257), (64, 255)),
    }
)
BLOCKS: dict[str, Shape] = {f"{T}": (4, 4, 128, T, 2048 // T, 65) for T in (128, 256, 512, 1024)}
PROMPTS, ANSWER = (32, 512), 128  # tokens that a run of one's own reads, and then writes
PREFIX = 1000  # tokens that many prompts begin with
SECONDS = 4  # of a race, where --runs does not say how long


More = Callable[[str, float], dict[str, float]]
Say = Callable[[str], object]


def nothing_more(who: str, seconds: float) -> dict[str, float]:
    """No figure beside time and rate."""
    return {}


@dataclass(frozen=True)
class Race:
    """Contenders for one work. Each call does `amount` of `unit`; `more` gives further figures."""

    work: str
    contenders: Mapping[str, Callable[[], object]]
    amount: float
    more: More = nothing_more
    warmup: int = 2

    def rows(self, runs: int | None) -> list[dict[str, Any]]:
        """Run it, `runs` rounds or as many as fit into SECONDS; one dict for each contender."""
        limit = SECONDS if runs is None else float("inf")
        times = take_turns(self.contenders, runs or 15, self.warmup, limit)
        medians = {who: summary(seconds) for who, seconds in times.items()}
        first = next(iter(medians.values()))[0]
        return [
            {"work": self.work, "who": who, "runs": len(times[who]), "ms": median * 1e3}
            | {"spread": spread, "rate": self.amount / median, "ratio": median / first}
            | self.more(who, median)
            for who, (median, spread) in medians.items()
        ]


def effort(flops: float, limits: Limits, peaks: dict[str, int]) -> More:
    """Of a training step: GFLOP/s, their share of the limit, peak memory."""
    share = "mfu" if limits.named else "of_matmul"

    def more(who: str, seconds: float) -> dict[str, float]:
        speed = flops / seconds
        memory = {"peak_memory": peaks[who]} if who in peaks else {}
        return {"gflops": speed / 1e9, share: speed / limits.flops, **memory}

    return more


def bench_train(a: Namespace, device: Device, limits: Limits, say: Say) -> Iterator[Race]:
    """Training steps, ours eager (and compiled with --compile) beside nanoGPT's."""
    for name, shape in SHAPES.items():
        n = 1 + bool(a.nanogpt) + a.compile
        if name == BIG and free_memory(device) < n * NEEDS:
            say(f"{name:30}left out: it wants {n * NEEDS / 1e9:.0f} GB of free memory")
            continue
        peaks = {"llm-tiny": peak_of_steps(shape, a)}
        contenders: dict[str, Any] = {"llm-tiny": stepper(gpt(shape), shape, device)}
        if a.compile:
            contenders["compiled"] = stepper(torch.compile(gpt(shape)), shape, device)
        if a.nanogpt:
            contenders["nanoGPT"] = NanoGPT(a.nanogpt, shape, device).step
            peaks["nanoGPT"] = peak_of_steps(shape, a, nanogpt=a.nanogpt)
        tokens = shape[3] * shape[4]
        flops = gpt(shape).flops_per_token() * tokens
        yield Race(name, contenders, tokens, effort(flops, limits, peaks), 1 if name == BIG else 2)


def reading(n_bytes: float, limits: Limits) -> More:
    """Of writing: the weights' bytes read a second, each once a token, beside a copy's."""

    def more(who: str, seconds: float) -> dict[str, float]:
        speed = n_bytes / seconds
        return {"gb_per_s": speed / 1e9, "of_copy": speed / limits.copy}

    return more


def bench_write(a: Namespace, device: Device, limits: Limits, say: Say) -> Iterator[Race]:
    """Generation after a prompt of one token, batch 1; then 32 rows together and one by one."""
    for name, (shape, lengths) in WRITE.items():
        n = lengths[bool(a.nanogpt or a.peers)]
        model = few_rows(gpt(shape).to(device.device)).eval()
        contenders: dict[str, Any] = {"llm-tiny": writer(model, 1, n)}
        if a.compile:
            contenders["compiled"] = writer(model, 1, n, decode_step=CompiledStep(model))
        if a.nanogpt:
            contenders["nanoGPT"] = partial(NanoGPT(a.nanogpt, shape, device).write, n)
        if a.peers and transformers_installed():
            contenders["transformers"] = partial(Transformers(shape, device).write, n)
        n_bytes = n * sum(p.nbytes for p in model.parameters())
        more = reading(n_bytes, limits) if name == BIG else nothing_more  # others fit a cache
        yield Race(f"{name}, {n} tokens", contenders, n, more, 1 if name == BIG else 2)
    model = gpt(WRITE["4x128"][0]).to(device.device).eval()
    contenders = {"batch of 32": writer(model, 32, 32), "one by one": writer(model, 1, 32, 32)}
    yield Race("4x128, 32 x 32 tokens", contenders, 32 * 32)


def bench_run(a: Namespace, device: Device, limits: Limits, say: Say) -> Iterator[Race]:
    """A run of one's own writes the likeliest tokens after prompts, beside transformers."""
    model = merged(load_model(run_dir(a.run))[0]).to(device.device).eval()
    floats = in_floats(copy.deepcopy(model))  # of a quantized run, too
    few_rows(with_native(model))
    c, peer = model.config, same_in_transformers(floats, say)
    for T in (T for T in PROMPTS if c.block_size >= T + ANSWER):
        prompt = torch.randint(c.vocab_size, (1, T), generator=torch.Generator().manual_seed(0))
        prompt = prompt.to(device.device)
        ours = partial(greedy, model, prompt)
        contenders: dict[str, Any] = {"llm-tiny": ours}
        if peer:
            contenders["transformers"] = partial(peer.write, prompt, ANSWER)
            same = "the same" if ours() == peer.write(prompt, ANSWER) else "DIFFERENT"
            say(f"  both write {same} tokens after {T}")
        yield Race(f"{ANSWER} tokens after {T}", contenders, ANSWER, warmup=1)


def greedy(model: TinyGPT, prompt: Tensor) -> list[int]:
    """The likeliest ids after a prompt (1,T)."""
    return [int(i) for i in generate(model, prompt, ANSWER, temperature=0)]


def bench_attention(a: Namespace, device: Device, limits: Limits, say: Say) -> Iterator[Race]:
    """A training step by either implementation of attention, and its peak memory."""
    say(f"  attn=auto is {AUTO} with this torch")
    for name, shape in BLOCKS.items():
        contenders = {n: stepper(gpt(shape, attn=n), shape, device) for n in ("naive", "sdpa")}
        peaks = {n: peak_of_steps(shape, a, n) for n in contenders}
        flops = gpt(shape).flops_per_token() * shape[3] * shape[4]
        more = effort(flops, limits, peaks)
        yield Race(f"block {name}", contenders, shape[3] * shape[4], more)


def bench_tokenizer(a: Namespace, device: Device, limits: Limits, say: Say) -> Iterator[Race]:
    """Learn and encode --text; the first call spells each different word, later ones look it up."""
    text = read_text(a.text)
    learnt = tok.BPETokenizer.train([text], a.vocab, workers=a.workers)
    train: dict[str, Any] = {
        "llm-tiny": lambda: tok.BPETokenizer.train([text], a.vocab, workers=a.workers)
    }
    parts = learnt.vocab, learnt.merges, learnt.special_tokens
    encode: dict[str, Any] = {
        "llm-tiny": lambda: sum(map(len, learnt.encode_blocks([text], workers=a.workers))),
        "first call": lambda: tok.BPETokenizer(*parts).encode(text),
    }
    if a.peers:
        train["tokenizers"] = lambda: learn_with_tokenizers(text, a.vocab)
        peer = learnt.to_tiktoken()
        encode["tiktoken"] = lambda: peer.encode_ordinary(text)
    megabytes = len(text.encode()) / 1e6
    yield Race(f"BPE train, {a.vocab:,} tokens", train, megabytes)
    yield Race("BPE encode", encode, megabytes)
    for work, who in other_kinds(text, a.vocab, a.workers, a.peers):
        yield Race(work, who, megabytes)


def bench_busy(a: Namespace, device: Device, limits: Limits, say: Say) -> Iterator[Race]:
    """Training steps beside no, one and two busy programs, by how the threads wait."""
    shape = SHAPES["4x128"]
    amount = STEPS * shape[3] * shape[4]
    with ExitStack() as stack:
        processes = contenders(stack, shape, a.device, a.dtype, a.nanogpt)
        for n in (0, 1, 2):
            with busy_loops(n):
                yield Race(f"4x128, {n} busy beside", processes, amount, warmup=1)


def bench_serve(a: Namespace, device: Device, limits: Limits, say: Say) -> Iterator[Race]:
    """Our server with a run, and another server's (--peer) with the same weights beside it."""
    model, tokenizer, _ = load_model(run_dir(a.run))
    text = read_text(a.text)
    sentences = text.split(". ")[: CLIENTS * 2]
    prompts = [f"{s}. Then" for s in sentences[:CLIENTS]]
    with ExitStack() as stack:
        ours = stack.enter_context(served(a.run, a.device))
        clients = {"": ours} | ({"peer, ": Client(a.peer)} if a.peer else {})
        contenders: dict[str, Any] = {}
        for name, client in clients.items():
            write = partial(client.ask, tokens=WRITTEN)
            contenders[f"{name}at once"] = at_once(write, prompts)
            contenders[f"{name}in turn"] = in_turn(write, prompts)
        if peer := same_in_transformers(in_floats(copy.deepcopy(model)), say):
            other = partial(in_transformers, peer, tokenizer)
            contenders["transformers"] = in_turn(other, prompts)
        yield Race(f"{CLIENTS} x {WRITTEN} tokens", contenders, CLIENTS * WRITTEN, warmup=1)
        alone = few_rows(with_native(merged(model).to(device.device))).eval()
        one: dict[str, Any] = {"generate": partial(write_after, alone, tokenizer, prompts[0])}
        one |= {f"{n}client": partial(c.ask, prompts[0], ANSWER) for n, c in clients.items()}
        yield Race(f"one text, {ANSWER} tokens", one, ANSWER, warmup=1)
        if model.config.block_size > PREFIX:
            known, numbers = long_prompt(tokenizer, text, 0), itertools.count(1)
            first = {
                "new prompt": lambda: ours.ask(long_prompt(tokenizer, text, next(numbers)), 1),
                "known": lambda: ours.ask(known, 1),
            }
            yield Race(f"{PREFIX} tokens, then 1", first, 1, warmup=1)
        for name, client in clients.items():
            say(f"{name or 'ours, '}{WRITTEN} tokens each; times at 50 and 95 %")
            for n in LOADS:
                say(told(under_load(client, prompts, n)))


def in_transformers(peer: SameInTransformers, tokenizer: tok.Tokenizer, prompt: str) -> list[int]:
    """The likeliest ids after a text, by transformers."""
    ids = torch.tensor([tokenizer.encode(prompt)], device=peer.model.device)
    return peer.write(ids, WRITTEN)


def write_after(model: TinyGPT, tokenizer: tok.Tokenizer, prompt: str) -> list[int]:
    """The likeliest ids after a text."""
    ids = torch.tensor([tokenizer.encode(prompt)], device=next(model.parameters()).device)
    return greedy(model, ids)


def long_prompt(tokenizer: tok.Tokenizer, text: str, i: int) -> str:
    """A text of PREFIX tokens; each i begins it otherwise."""
    return f"{i} " + tokenizer.decode(tokenizer.encode(text[: PREFIX * 8])[: PREFIX - 3])


RACES = {  # what bench.py takes for --only
    "train": bench_train,
    "write": bench_write,
    "run": bench_run,
    "attention": bench_attention,
    "tokenizer": bench_tokenizer,
    "busy": bench_busy,
    "serve": bench_serve,
}
