"""The ways in which sample.py writes: texts, a table, a conversation. Takes its flags; prints."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from model import TinyGPT
from model.adapt.lora import lora_state, without_lora
from tok import Tokenizer
from utils.writing.chat import Chat
from utils.writing.compile import compiled_step
from utils.writing.tables import alternatives, grid
from utils.writing.template import ChatTemplate
from utils.writing.terminal import bold, converse, heading, note, show
from utils.writing.text import start_ids, stream_batch, stream_text


def tell_limits(
    a: Namespace, model: TinyGPT, tokenizer: Tokenizer, prompts: Sequence[str], end: int | None
) -> None:
    """Note what of the prompts and flags is more than there is."""
    T, V = model.config.block_size, tokenizer.vocab_size
    n = max(len(start_ids(tokenizer, prompt, end)) for prompt in prompts)
    if n > T:
        note(f"the prompt has {n} tokens; the model sees the last {T}")
    if max(a.top_k) > V:
        note(f"top_k={max(a.top_k)} is more than the vocabulary: all {V} tokens stay")


def check_adapters(a: Namespace, model: TinyGPT) -> None:
    """Raise ValueError for --lora and a model without adapters."""
    if a.lora and not lora_state(model):
        raise ValueError(f"lora={' '.join(a.lora)}, but the run has no adapters; leave out --lora")


def adapters_on_and_off(a: Namespace, model: TinyGPT) -> Iterator[None]:
    """What --lora asks for in turn: adapters count, or not; under a heading each if it is both."""
    ways = a.lora or ["on"]
    for adapters in ways:
        if len(ways) > 1:
            print(bold(f"=== adapters {adapters}"))
        with without_lora(model) if adapters == "off" else nullcontext():
            yield


def write(
    a: Namespace,
    model: TinyGPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    end: int | None,
    template: ChatTemplate | None = None,
) -> list[str]:
    """Write as the flags say; gives the texts, prompts included, if it was texts.

    `end` is the id of <|endoftext|> if the model learnt from documents.
    """
    model.cache_dtype = torch.int8 if a.cache == "int8" else None
    rows = 1 if a.show_probs else len(prompts)
    step = compiled_step(model, rows, note) if a.compile else None
    settings: dict[str, Any] = {"stops": a.stop, "seed": a.seed, "cache": not a.no_cache}
    settings |= {"top_p": a.top_p, "min_p": a.min_p, "repetition_penalty": a.repetition_penalty}
    settings["decode_step"] = step
    one = {**settings, "temperature": a.temp[0], "top_k": a.top_k[0] or None}
    if template is not None:
        chat = Chat(model, tokenizer, template, system=a.system, note=note, **one)
        converse(lambda said, pace: chat.answer(said, a.steps, pace), echo=False)
        return []
    settings["end"] = one["end"] = end
    if a.interactive:
        converse(lambda p, pace: stream_text(model, tokenizer, p, a.steps, callback=pace, **one))
        return []
    if a.grid:
        for line in grid(model, tokenizer, prompts, a.steps, a.temp, a.top_k, **settings):
            print(line, flush=True)
        return []
    if a.show_probs:
        for i, prompt in enumerate(prompts):
            heading(i + 1, len(prompts))
            own = {**one, "seed": None if a.seed is None else a.seed + i}
            for line in alternatives(model, tokenizer, prompt, a.steps, **own):
                print(line, flush=True)
        return []
    written = []
    texts = stream_batch(model, tokenizer, prompts, a.steps, **one)
    for i, (prompt, pieces) in enumerate(zip(prompts, texts, strict=True), 1):
        heading(i, len(prompts))
        written.append(show(prompt, pieces))
    return written
