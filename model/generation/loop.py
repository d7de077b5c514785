"""Generate: pick a token from the last logits, append it, again. B batch, V vocabulary."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.generation.cache import KVCache
from model.generation.context import CachedDecoder, DecodeStep, receptive_field
from model.generation.limits import check_sampling
from model.generation.prompts import (
    Prompts,
    Seeds,
    check_kept,
    ids_in,
    left_padded,
    prompts_of,
    seeds_of,
    uniforms,
)
from model.generation.sampling import pick_next
from model.generation.uncached import UncachedDecoder
from model.gpt import TinyGPT

Callback = Callable[[Tensor, Tensor], object]  # takes ids (B,) and logits (B,V)


@contextmanager
def inference(model: TinyGPT) -> Iterator[None]:
    """Eval mode and no gradients; afterwards the mode is as it was."""
    training = model.training
    if training:  # eval() visits every module: not at each step for nothing
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if training:
            model.train()


@dataclass(frozen=True)
class Plan:
    """What the steps of one `generate` have in common."""

    steps: int
    vocab_size: int
    stop: Tensor | None  # ids that end a row
    numbers: Iterator[Tensor]  # (B,) of [0,1) for each step
    sampling: dict[str, Any]  # for pick_next
    cache: bool
    decode_step: DecodeStep | None
    kept: KVCache | None
    callback: Callback | None


class Texts:
    """B texts (B,N) that grow by a token a step, zeros before the shorter ones."""

    def __init__(self, model: TinyGPT, prompts: list[Tensor], plan: Plan) -> None:
        lengths = [len(row) for row in prompts]
        self.model = model
        self.plan = plan
        self.text = left_padded(prompts)
        self.longest = max(model.config.block_size, receptive_field(model.config) + 1)
        self.done = torch.zeros_like(self.text[:, 0], dtype=torch.bool)
        self.in_context: Tensor | None = None  # (B,V) bool
        if plan.sampling["repetition_penalty"] != 1:
            self.in_context = ids_in(prompts, plan.vocab_size)
        self.decoder = (
            CachedDecoder(model, self.text, lengths, plan.decode_step, plan.kept)
            if plan.cache
            else UncachedDecoder(model, lengths)
        )

    def step(self) -> Tensor:  # exercise: generate
        """Draw the next ids (B,) and append them."""
        plan = self.plan
        logits = self.model.head(self.decoder(self.text))[:, : plan.vocab_size]
        u = next(plan.numbers)
        ids = pick_next(logits, in_context=self.in_context, u=u, **plan.sampling)
        if plan.stop is not None:
            ids = torch.where(self.done, self.text[:, -1], ids)
            self.done |= torch.isin(ids, plan.stop)
        if self.in_context is not None:
            self.in_context.scatter_(1, ids[:, None], True)
        if plan.callback is not None:
            plan.callback(ids, logits)
        self.text = torch.cat((self.text, ids[:, None]), 1)[:, -self.longest :]
        return ids


def generate(
    model: TinyGPT,
    idx: Prompts,
    steps: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: Seeds = None,
    stop: int | Iterable[int] | None = None,
    vocab_size: int | None = None,
    cache: bool = True,
    decode_step: DecodeStep | None = None,
    kept: KVCache | None = None,
    callback: Callback | None = None,
) -> Iterator[Tensor]:
    """Yield the next ids (B,), `steps` times, after the prompts idx: (B,T), or B lists of ids.

    Each row is what it would be alone, whatever the lengths of the others. `seed` is one a row, or
    a number s, which gives row i the seed s + i; torch's global random state is left alone. `stop`,
    an id or a set of them, ends when every row has drawn one; a row that is done repeats its stop
    id. Only ids below `vocab_size` are drawn (default: the model's). `callback(ids, logits)` is
    called at each step with ids (B,) and logits (B,V). What the model reads of a text longer than
    block_size is said in `model.generation.context`; `cache=False` reads all that again at each
    step, for the same ids, more slowly. `decode_step(idx, cache)`, say a CompiledStep, gives the
    hidden states (B,1,C) of one token a row; by default a TokenStep, or `model.hidden_states` where
    that would compute something else (`can_step`). `kept`, a KVCache(model.config, 1), is for a
    text that goes on: what it holds of the prompt's beginning is not read again, and afterwards it
    holds the text but for the last id. Between two steps the model is in the mode that the caller
    left it in. Raises ValueError for an empty prompt, ids that the model does not know, or a bad
    setting.
    """
    sampling: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    sampling |= {"min_p": min_p, "repetition_penalty": repetition_penalty}
    check_sampling(**sampling)
    V, device = model.config.vocab_size, next(model.parameters()).device
    prompts = prompts_of(idx, V, device)
    if steps < 0:
        raise ValueError(f"steps={steps} must be 0 or more")
    if vocab_size is not None and not 1 <= vocab_size <= V:
        raise ValueError(f"vocab_size={vocab_size} must be from 1 to the model's {V}")
    if decode_step is not None and not cache:
        raise ValueError("decode_step needs the cache; leave out cache=False")
    if kept is not None:
        check_kept(kept, model.config, len(prompts), cache)
    numbers = uniforms(seeds_of(seed, len(prompts)), device)
    stops = sorted({stop} if isinstance(stop, int) else stop or ())
    ends = torch.tensor(stops, device=device) if stops else None
    how = cache, decode_step, kept, callback
    plan = Plan(steps, vocab_size or V, ends, numbers, sampling, *how)
    return decode(model, prompts, plan)


def decode(model: TinyGPT, prompts: list[Tensor], plan: Plan) -> Iterator[Tensor]:
    """Do the work of `generate`, which checks its arguments before the first step is asked for."""
    texts = None
    for _ in range(plan.steps):
        with inference(model):  # between the steps the model is the caller's
            texts = texts or Texts(model, prompts, plan)
            ids = texts.step()
        yield ids.clone()  # outside of inference mode: it may be trained on
        if plan.stop is not None and texts.done.all():  # a wait for the device
            return
