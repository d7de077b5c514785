"""Weights that a pruned model has set to 0, and that training leaves there."""

from typing import Any

import torch
from torch import nn

from utils.training.muon import CombinedOptimizer
from utils.training.optim import AnyOptimizer


def keep_zeros(model: nn.Module, optimizer: AnyOptimizer) -> None:
    """Set those of the blocks' weights that are 0 now to 0 again after each step.

    Whatever it adds: momentum, or Muon's mixture of a whole matrix. ValueError for a matrix that
    is 0 everywhere, which would never learn.
    """
    masks = []
    for name, p in model.named_parameters():
        if name.startswith("blocks.") and p.ndim == 2 and bool((p == 0).any()):
            if not bool((p != 0).any()):
                raise ValueError(f"{name} is 0 everywhere, and keep_zeros would leave it so")
            masks.append((p, p != 0))

    @torch.no_grad()
    def clear(*_: Any) -> None:
        for p, mask in masks:
            p.mul_(mask)

    last = optimizer.optimizers[-1] if isinstance(optimizer, CombinedOptimizer) else optimizer
    last.register_step_post_hook(clear)
