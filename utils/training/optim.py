"""Which optimizer moves which parameters, and the learning rate as a function of the step."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from utils.config import OptimConfig
from utils.training.lean import AdamW
from utils.training.muon import CombinedOptimizer, Muon

Groups = list[dict[str, Any]]
AnyOptimizer = torch.optim.Optimizer | CombinedOptimizer


def make_optimizer(  # exercise: adamw-groups
    params: Iterable[nn.Parameter],
    config: OptimConfig,
    *,
    matrices: Groups | None = None,
    dtype: torch.dtype = torch.float32,
) -> AnyOptimizer:
    """AdamW (Loshchilov & Hutter 2019) that decays matrices only, not biases and gains.

    With optimizer=muon, Muon moves `matrices` (see `muon_groups`) by products in `dtype`, and
    AdamW the rest: embeddings, head, biases and gains. Raises ValueError if there are none.
    """
    muon = (matrices or []) if config.optimizer == "muon" else []
    taken = {id(p) for group in muon for p in group["params"]}
    rest = [p for p in params if p.requires_grad and id(p) not in taken]
    groups: Groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda") for p in rest)  # one kernel for all
    betas = (config.beta1, config.beta2)
    adamw = AdamW(groups, lr=config.lr, betas=betas, fused=fused)
    if config.optimizer == "adamw":
        return adamw
    if not muon:
        raise ValueError("optimizer=muon needs matrices=muon_groups(model)")
    kwargs = {"momentum": config.momentum, "weight_decay": config.weight_decay}
    return CombinedOptimizer(adamw, Muon(muon, lr=config.lr, dtype=dtype, **kwargs))


def muon_groups(model: nn.Module) -> Groups:
    """The matrices inside, as Muon wants them, one group for each height of the parts in them.

    Queries, keys and values are stacked in one parameter, but are three matrices.
    """
    groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
    for block in model.blocks:  # type: ignore[union-attr]
        attn = block.attn
        for p in block.parameters():
            if p.ndim == 2:
                D = len(attn.qkv.weight) // sum(attn.heads)
                rows = [n * D for n in attn.heads] if p is attn.qkv.weight else [len(p)]
                groups.setdefault(tuple(rows), []).append(p)
    for head in (model.head, getattr(model, "pooler", None)):
        if dense := getattr(head, "dense", None):  # of a BERT, between its blocks and its logits
            groups.setdefault((len(dense.weight),), []).append(dense.weight)
    return [{"params": params, "rows": list(rows)} for rows, params in groups.items()]


def lr_at(step: int, steps: float, config: OptimConfig) -> float:  # exercise: lr-at
    """Learning rate of a step: linear warmup to lr, then a decay to `config.last_lr` at `steps`.

    cosine: half a cosine; linear: a line; trapezoid: lr, and a line over the last share `cooldown`
    of the steps (0: none). lr=1, last_lr=0, warmup=2, steps=6 -> 0.33, 0.67, 1, 0.85, 0.5, 0.15; 0.
    """
    c, last = config, config.last_lr
    if step < c.warmup:
        return c.lr * (step + 1) / (c.warmup + 1)
    if step >= steps:
        return last
    done = (step - c.warmup) / (steps - c.warmup)  # 0 -> 1
    left = {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "linear": 1 - done,
        "trapezoid": min(1.0, (steps - step) / (steps * c.cooldown)) if c.cooldown else 1.0,
    }[c.schedule]
    return last + left * (c.lr - last)
