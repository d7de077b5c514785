"""One question for all families: which token was here? Texts with a gap, and 32 candidates for it.

A GPT is asked from the left alone, then with each candidate scored together with all that follows,
one pass a candidate. A BERT sees both sides in one pass.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

EDGE = 8  # tokens that stand on either side of a gap, at least


@dataclass(frozen=True)
class Gaps:
    """Texts (B,T) as ids; for each of N gaps its row and position (N,2), its candidates (N,K).

    The first candidate is the truth.
    """

    rows: Tensor
    at: Tensor
    candidates: Tensor


def gaps(rows: Sequence[Sequence[int]], pool: Sequence[int], each: int, K: int, seed: int) -> Gaps:
    """`each` gaps in every text; candidates are drawn from `pool` as often as they occur in it.

    ValueError for no text, for texts too short to have so many gaps, or a pool with too few tokens.
    """
    x, g = torch.tensor(rows), torch.Generator().manual_seed(seed)
    if not len(x) or x.size(1) < 2 * EDGE + each:
        raise ValueError(f"{len(x)} texts for {each} gaps; give some of {2 * EDGE + each} tokens")
    if len(set(pool)) <= K:
        raise ValueError(f"{len(set(pool))} different tokens to draw {K} candidates from")
    at, candidates, tokens = [], [], torch.tensor(pool)
    for b, row in enumerate(x):
        for t in torch.randperm(x.size(1) - 2 * EDGE, generator=g)[:each] + EDGE:
            chosen = [int(row[t])]
            while len(chosen) < K:
                drawn = int(tokens[torch.randint(len(tokens), (1,), generator=g)])
                chosen += [drawn] if drawn not in chosen else []
            at.append([b, int(t)])
            candidates.append(chosen)
    return Gaps(x, torch.tensor(at), torch.tensor(candidates))


def token_log_p(model: Any, x: Tensor, start: int) -> Tensor:
    """log p of each token, given those before it and the end of another text: (N,T) -> (N,T)."""
    seen = torch.cat((x.new_full((len(x), 1), start), x), 1)
    log_p: Tensor = model(seen[:, :-1])[0].log_softmax(-1)
    return log_p.gather(-1, x[:, :, None])[..., 0]


@torch.no_grad()
def ask_gpt(model: Any, asked: Gaps, special: Mapping[str, int]) -> dict[str, float]:
    """Shares of gaps filled right, from the left and from both sides; perplexity of the texts."""
    left = both = 0
    start = special["<|endoftext|>"]
    for (b, t), chosen in zip(asked.at.tolist(), asked.candidates, strict=True):
        x = asked.rows[b].repeat(len(chosen), 1)
        x[:, t] = chosen
        log_p = token_log_p(model, x, start)
        left += int(log_p[:, t].argmax()) == 0
        both += int(log_p[:, t:].sum(1).argmax()) == 0
    nats = -token_log_p(model, asked.rows, start).mean().item()
    n = len(asked.at)
    return {"left": left / n, "both": both / n, "perplexity": math.exp(nats)}


@torch.no_grad()
def ask_bert(model: Any, asked: Gaps, special: Mapping[str, int]) -> dict[str, float]:
    """Share of gaps filled right in one pass; pseudo-perplexity, each token masked by itself.

    Salazar et al. 2020: it is no perplexity, since each token is guessed from all others.
    """
    start, end, mask = (special[s] for s in ("[CLS]", "[SEP]", "[MASK]"))
    B, T = asked.rows.shape
    edges = [asked.rows.new_full((B, 1), i) for i in (start, end)]
    rows = torch.cat((edges[0], asked.rows, edges[1]), 1)
    x, at = rows[asked.at[:, 0]], asked.at[:, 1] + 1
    n = torch.arange(len(at))
    x[n, at] = mask
    right = model(x)[0][n, at].gather(-1, asked.candidates).argmax(-1) == 0
    nats, t = 0.0, torch.arange(T)
    for row, ids in zip(rows, asked.rows, strict=True):
        x = row.repeat(T, 1)
        x[t, t + 1] = mask
        nats -= model(x)[0][t, t + 1].log_softmax(-1)[t, ids].mean().item()
    return {"one_pass": right.float().mean().item(), "perplexity": math.exp(nats / B)}
