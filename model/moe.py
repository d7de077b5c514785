"""Mixture of experts in place of an MLP: a router sends each token to a few of many MLPs.

More parameters at the same work a token. Letters: N tokens, C = d_model, E experts, k of a token.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

BALANCE = 0.01  # weight of the balancing loss (Switch Transformer, Fedus et al. 2021, section 2.2)


def shares(chosen: Tensor, E: int) -> list[int]:
    """How many of the choices (N,k) are of each expert; of tensors without contents, equal shares.

    [[0, 2], [2, 1]], 4 -> [1, 1, 2, 0]
    """
    if type(chosen) is not Tensor:  # memory is counted on such (utils.training.memory)
        return [(chosen.numel() + i) // E for i in range(E)]
    return torch.bincount(chosen.flatten(), minlength=E).tolist()


class MoE(nn.Module):
    """E experts, of which each token takes k: (B,T,C) -> (B,T,C). No token is ever dropped.

    y = sum of w_i expert_i(x) over the k experts that the router finds most probable; w is their
    probability (Switch, eq. 2), for k > 1 divided by its sum (GShard, Lepikhin et al. 2020).
    """

    def __init__(self, config: Any, expert: Callable[[Any], nn.Module]) -> None:
        super().__init__()
        self.top = config.experts_top
        self.router = nn.Linear(config.d_model, config.experts, bias=False)
        self.experts = nn.ModuleList(expert(config) for _ in range(config.experts))
        self.balance: Tensor | None = None  # of the last pass in training: see `balance`

    def forward(self, x: Tensor) -> Tensor:
        """Sort the choices by expert, let each read its own, and add up what they say."""
        flat = x.flatten(0, -2)  # (N,C)
        p = self.router(flat).softmax(-1)  # (N,E)
        w, chosen = p.topk(self.top)  # (N,k)
        w = w / w.sum(-1, keepdim=True) if self.top > 1 else w
        order = chosen.flatten().argsort(stable=True)  # (N k,)
        token, sizes = order // self.top, shares(chosen, p.size(-1))
        parts = zip(self.experts, flat[token].split(sizes), strict=True)
        y = torch.cat([expert(part) for expert, part in parts])  # an empty part has gradients, of 0
        y = y * w.flatten()[order, None]
        if self.training:
            f = torch.tensor(sizes, device=p.device) / len(order)
            self.balance = len(sizes) * (f * p.mean(0)).sum()  # Switch, eq. 4: 1 if all are even
        return torch.zeros_like(flat, dtype=y.dtype).index_add(0, token, y).view_as(x)


def balance(model: nn.Module) -> Tensor | float:
    """The balancing loss of a pass in training, of which only the gradient counts: its value is 0.

    So the loss that is reported stays that of the next token. A mean over the blocks, times
    BALANCE; 0.0 for a model without experts.
    """
    mixtures = [m for m in model.modules() if isinstance(m, MoE) and m.balance is not None]
    losses = [m.balance for m in mixtures if m.balance is not None]
    for m in mixtures:
        m.balance = None  # it holds the whole graph
    if not losses:
        return 0.0
    loss = BALANCE * torch.stack(losses).mean()
    return loss - loss.detach()


def active_weights(model: nn.Module) -> int:
    """Weights of linear layers that a token is multiplied by: all but those of other experts."""
    every = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    for m in model.modules():
        if isinstance(m, MoE):
            one = sum(p.numel() for p in m.experts[0].parameters() if p.ndim == 2)
            every -= one * (len(m.experts) - m.top)
    return every
