"""Which optimizer moves which parameters, and the learning rate as a function of the step."""

import math

import torch

from utils.config import OptimConfig
from utils.muon import Muon


def make_optimizer(model, config: OptimConfig, dtype=torch.float32) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) that decays matrices only, not biases and gains.

    With optimizer=muon, Muon moves the blocks' matrices, by products in `dtype`; embeddings, head,
    biases and gains stay with AdamW.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    muon = matrices(model) if config.optimizer == "muon" else []
    taken = {id(p) for group in muon for p in group["params"]}
    rest = [p for p in params if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    # one kernel for all the arithmetic, where there is one
    fused = all(p.device.type in ("cpu", "cuda") for p in params)
    betas = (config.beta1, config.beta2)
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=fused)
    if not muon:
        return adamw
    kwargs = {"momentum": config.momentum, "weight_decay": config.weight_decay}
    return Muon(adamw, muon, lr=config.lr, dtype=dtype, **kwargs)


def matrices(model) -> list[dict]:
    """The blocks' matrices as Muon wants them, one group for each height of the parts in them.

    Queries, keys and values lie one upon another in one parameter, but are three matrices.
    """
    groups: dict[tuple, list] = {}
    for block in model.blocks:
        attn = block.attn
        for p in block.parameters():
            if p.ndim == 2:
                D = len(attn.qkv.weight) // sum(attn.heads)
                rows = [n * D for n in attn.heads] if p is attn.qkv.weight else [len(p)]
                groups.setdefault(tuple(rows), []).append(p)
    return [{"params": params, "rows": list(rows)} for rows, params in groups.items()]


def lr_at(step: int, steps: float, config: OptimConfig) -> float:
    """Learning rate of a step: a line up to lr over `warmup` steps, then down to min_lr at `steps`.

    cosine: half a cosine; linear: a line; trapezoid: lr, and a line over the last share `cooldown`
    of the steps. lr=1, min_lr=0, warmup=2, steps=6 -> 0.33, 0.67, 1, 0.85, 0.5, 0.15; then min_lr.
    """
    c = config
    if step < c.warmup:
        return c.lr * (step + 1) / (c.warmup + 1)
    if step >= steps:
        return c.min_lr
    done = (step - c.warmup) / (steps - c.warmup)  # 0 -> 1
    left = {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "linear": 1 - done,
        "trapezoid": min(1.0, (steps - step) / (steps * c.cooldown)) if c.cooldown else 1.0,
    }[c.schedule]
    return c.min_lr + left * (c.lr - c.min_lr)
