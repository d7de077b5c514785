"""From logits to ids: temperature, top-k, top-p, min-p, repetition penalty. B rows, V ids."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from model.generation.limits import check_sampling


def penalise(logits: Tensor, in_context: Tensor, penalty: float) -> Tensor:  # exercise: penalty
    """Logits (B,V); those in_context, (B,V) bool, over penalty, or times it if negative."""
    less = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(in_context, less, logits)


def largest(x: Tensor, k: int) -> Tensor:  # exercise: top-k
    """Which are the k largest of each row, (B,V) bool: exactly k, of equals the first ones."""
    least = x.topk(k).values[:, -1:]
    above = x > least
    equal = x == least
    return above | (equal & (equal.cumsum(-1) <= k - above.sum(-1, keepdim=True)))


def nucleus(p: Tensor, top_p: float) -> Tensor:  # exercise: top-p
    """Which make up the smallest set of the likeliest whose mass reaches top_p, (B,V) bool."""
    mass, ids = p.sort(dim=-1, descending=True, stable=True)
    kept = mass.cumsum(-1) - mass < top_p  # stays while the mass before it is short of top_p
    kept[:, 0] = True  # a top_p of 1e-50 is 0 in float32
    return torch.empty_like(kept).scatter_(-1, ids, kept)


def probabilities(  # exercise: probabilities
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """What `pick_next` draws from: logits (B,V) -> probabilities (B,V).

    In this order: top_k keeps the k most likely, exactly k, also on ties; the temperature divides
    the logits; top_p keeps the smallest set whose mass reaches p (nucleus sampling, Holtzman et
    al. 2020); min_p drops what is less likely than min_p times the likeliest (Nguyen et al. 2024).
    """
    check_sampling(temperature, top_k, top_p, min_p)
    z = logits.float()
    if temperature == 0:
        return F.one_hot(z.argmax(-1), z.size(-1)).float()
    if top_k is not None and top_k < z.size(-1):
        z = z.masked_fill(~largest(z, top_k), -math.inf)
    if temperature != 1:  # the largest logit is taken off first: a tiny one cannot overflow then
        temperature = min(max(temperature, 1e-37), 1e37)  # beyond, 0 / 0 in float32, or inf / inf
        z = (z - z.amax(-1, keepdim=True)) / temperature
    p = z.softmax(-1)
    if top_p is not None and top_p < 1:
        p = p * nucleus(p, top_p)
    if min_p:
        p = p * (p >= min_p * p.amax(-1, keepdim=True))
    return p / p.sum(-1, keepdim=True) if top_p or min_p else p


def draw(p: Tensor, u: Tensor) -> Tensor:  # exercise: draw
    """Where u (B,) of [0,1) falls when probabilities p (B,V) are laid end to end: ids (B,)."""
    ends = p.cumsum(-1)
    return torch.searchsorted(ends, ends[:, -1:] * u[:, None], right=True)[:, 0]


def pick_next(
    logits: Tensor,
    *,
    repetition_penalty: float = 1.0,
    in_context: Tensor | None = None,
    generator: torch.Generator | None = None,
    u: Tensor | None = None,
    **sampling: Any,
) -> Tensor:
    """Draw one id per row: logits (B,V) -> (B,).

    `sampling` goes to `probabilities`, from which is drawn, by numbers u (B,) of [0,1) or else by
    the generator; at temperature 0 the most likely is taken. repetition_penalty > 1 first lowers
    what the text has in it, in_context (B,V) bool (CTRL, Keskar et al. 2019). Raises ValueError
    for temperature < 0, top_k < 1, top_p outside (0, 1], min_p outside [0, 1], or a
    repetition_penalty that is not positive.
    """
    check_sampling(**sampling, repetition_penalty=repetition_penalty)
    if in_context is not None and repetition_penalty != 1:
        logits = penalise(logits, in_context, repetition_penalty)
    if sampling.get("temperature") == 0:
        return logits.argmax(-1)
    p = probabilities(logits, **sampling)
    if u is None:
        u = torch.rand(len(p), generator=generator, device=p.device)
    return draw(p, u)
