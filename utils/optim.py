"""AdamW over two groups of parameters, and the learning rate as a function of the step."""

import math

import torch

from utils.config import OptimConfig


def make_optimizer(model, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) that decays matrices only, not biases and gains."""
    params = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    # one kernel for all the arithmetic, where there is one
    fused = all(p.device.type in ("cpu", "cuda") for p in params)
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=fused)


def lr_at(step: int, *, lr: float, min_lr: float, warmup: int, steps: int) -> float:
    """Learning rate of a step: a line up to lr over `warmup` steps, half a cosine down to min_lr.

    lr=1, min_lr=0, warmup=2, steps=6 -> 0.33, 0.67, 1, 0.85, 0.5, 0.15; from step 6 on, min_lr.
    """
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    if step >= steps:
        return min_lr
    done = (step - warmup) / (steps - warmup)  # 0 -> 1
    return min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (lr - min_lr)
