"""muP: a learning rate found on a narrow model holds for a wide one (Yang et al. 2022).

It acts from outside the model: on initial weights, and on the learning rate of each group by its
`lr_scale`, which the training loop multiplies. m is a model's width over the base width, where all
is as without muP. Table 3 of the paper, equal to table 8 where the head is free; heads keep their
size D, so that attention is as it was. The derivation: docs/transfer.md.
"""

from typing import Any

import torch
from torch import nn

from model.gpt import TinyGPT
from utils.config import OptimConfig
from utils.training.muon import CombinedOptimizer, Muon
from utils.training.optim import AnyOptimizer, make_optimizer, muon_groups

Group = dict[str, Any]


def ratio(model: nn.Module, config: OptimConfig) -> float:
    """m, how many times wider a model is than the base width; 1 without muP."""
    C: int = model.config.d_model  # type: ignore[union-attr,assignment]
    return C / config.mup_width if config.mup_width else 1.0


@torch.no_grad()
def scale_init(model: TinyGPT, config: OptimConfig) -> TinyGPT:
    """Scale what was drawn: blocks' matrices by 1 / sqrt(m), the head by 1 / m. Gives the model.

    Embeddings, biases and gains stay: nothing that grows with the width is summed in them.
    """
    m = ratio(model, config)
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.div_(m**0.5)
    if config.mup_width:  # the head is free, as Settings sees to
        model.head.weight.div_(m)
    return model


def split(group: Group, wide: set[int], scale: float) -> list[Group]:
    """A group as two: the matrices whose rows grow with the width, at `scale`, and the rest."""
    parts = [[p for p in group["params"] if (id(p) in wide) == grows] for grows in (True, False)]
    groups = [{**group, "params": parts[0], "lr_scale": scale}, {**group, "params": parts[1]}]
    return [part for part in groups if part["params"]]


def optimizer_for(model: nn.Module, config: OptimConfig, dtype: torch.dtype) -> AnyOptimizer:
    """A model's optimizer: `make_optimizer`, with the learning rates of muP if it is asked for.

    AdamW's step has one size whatever the gradient's: over C inputs it adds up to C, so 1 / m. A
    step of Muon has all singular values near 0.2 sqrt(max(R, C)), so 1 / sqrt(m).
    """
    matrices = muon_groups(model) if config.optimizer == "muon" else None
    optimizer = make_optimizer(model.parameters(), config, matrices=matrices, dtype=dtype)
    if not config.mup_width:
        return optimizer
    m = ratio(model, config)
    wide = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Linear)}
    combined = isinstance(optimizer, CombinedOptimizer)
    for part in optimizer.optimizers if combined else [optimizer]:  # type: ignore[union-attr]
        scale = m**-0.5 if isinstance(part, Muon) else 1 / m
        groups = part.param_groups
        groups[:] = [new for group in groups for new in split(group, wide, scale)]
    return optimizer
