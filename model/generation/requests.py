"""A request to the engine, and its text on its way: what is asked for, drawn, told."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from model.generation.cache import KVCache
from model.generation.prompts import ids_in, seeds_of, uniforms
from model.generation.sampling import pick_next

SAMPLING = "temperature", "top_k", "top_p", "min_p", "repetition_penalty"


class QueueFull(RuntimeError):
    """There are as many requests waiting as may wait."""


@dataclass(frozen=True)
class Request:
    """A prompt, and how to go on from it: the arguments of `generate`, for one text.

    presence_penalty and frequency_penalty are taken off the logits of drawn ids, once and as often
    as each was drawn. `top` asks for the log-probabilities of that many ids beside the drawn one,
    `score` for the prompt's own, too. `model` is one of the engine's models.
    """

    ids: Sequence[int]
    steps: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: frozenset[int] = frozenset()
    vocab_size: int | None = None
    top: int | None = None
    score: bool = False
    model: str = ""


@dataclass(frozen=True)
class Token:
    """An id of a text: drawn, or, with `score`, of its prompt.

    logprob in nats, None where nothing stands before it or it was not asked for; `top` the
    likeliest ids with theirs.
    """

    id: int
    logprob: float | None = None
    top: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """News of one request: tokens of its prompt (`score`), a drawn one, its end."""

    number: int
    scored: Sequence[Token] = ()
    token: Token | None = None
    finish: str | None = None  # "stop" or "length"
    cached: int = 0  # at the end: tokens of the prompt that were known, and not read again


class Text:
    """A request on its way."""

    def __init__(self, number: int, request: Request, device: torch.device, group: int) -> None:
        self.number, self.request, self.group = number, request, group
        self.ids = list(request.ids)  # the prompt, and what was drawn
        self.drawn: Counter[int] = Counter()
        self.numbers = uniforms(seeds_of(request.seed, 1), device)
        self.cache: KVCache | None = None  # while its prompt is being read
        self.scored: list[Token] = []
        self.cached = 0

    def pick(self, logits: Tensor) -> int:
        """Draw the next id from logits (V,), exactly as `generate` would."""
        r = self.request
        z = logits[None, : r.vocab_size]
        if self.drawn and (r.presence_penalty or r.frequency_penalty):
            ids = torch.tensor(list(self.drawn), device=z.device)
            counts = torch.tensor(list(self.drawn.values()), device=z.device)
            less = r.presence_penalty + r.frequency_penalty * counts
            z = z.index_add(1, ids, -less[None].to(z))
        seen = None
        if r.repetition_penalty != 1:
            seen = ids_in([torch.tensor(self.ids, device=z.device)], z.size(1))
        how: dict[str, Any] = {name: getattr(r, name) for name in SAMPLING}
        return int(pick_next(z, in_context=seen, u=next(self.numbers), **how))

    def tokens(self, ids: Sequence[int], logits: Tensor) -> list[Token]:
        """Ids (T,) of this text as it is told of them, by the logits (T,V) that each had."""
        r = self.request
        if r.top is None and not r.score:
            return [Token(i) for i in ids]
        logprobs = logits.float().log_softmax(-1)
        known = logprobs[:, : r.vocab_size]
        best = known.topk(min(r.top or 0, known.size(1)))
        own = logprobs.gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0]
        rows = zip(ids, own.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
        return [Token(i, p, dict(zip(js, ps, strict=True))) for i, p, js, ps in rows]
