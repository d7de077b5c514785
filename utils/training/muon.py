"""Muon: a step whose matrix has all its singular values near 1, so that no direction is forgotten.

After Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, with the size of the step after
Liu et al. 2025 (Muon is Scalable for LLM Training, eq. 4): one learning rate serves it and AdamW.
Hand-written, since torch's own Muon knows neither stacked matrices nor batches of them.
"""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from utils.training.lean import Optimizer

# aX + b(XX^T)X + c(XX^T)^2X, three times: singular values in [0.01, 1] go to [0.73, 1.27]. Each is
# the best polynomial of degree 5 for what the one before leaves (Polar Express, Amsel et al. 2025).
ABC = (8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526)


def orthogonal(X: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:  # exercise: orthogonal
    """The orthogonal matrix near X, for a stack (N,R,C): U V^T of X = U S V^T, but for S near 1.

    Newton and Schulz's iteration, of products only. They need S <= 1: the square root of the
    squares' sum makes it so, but then most of S is near 1 / sqrt(R). The eighth root of the eighth
    powers' sum is as safe and three times nearer, and the first round has it at hand.
    """
    transposed = X.size(1) > X.size(2)
    Y = X.mT if transposed else X  # R <= C, so that Y Y^T is the small one
    Y = (Y / Y.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).to(dtype)
    for i, (a, b, c) in enumerate(ABC):
        G = Y @ Y.mT
        GG = G @ G
        if i == 0:
            n = GG.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
            Y, G, GG = Y / n**0.25, G / n**0.5, GG / n
        Y = torch.baddbmm(Y, b * G + c * GG, Y, beta=a)
    return (Y.mT if transposed else Y).to(X.dtype)


class Muon(Optimizer):
    """Muon for groups {"params": [...], "rows": [...]} of matrices.

    rows are the heights of the parts that are stacked in each parameter; each part is made
    orthogonal by itself. Parts of one shape, of whichever parameter, go through the products
    together. `dtype` is of the products.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient. A closure is not supported."""
        assert closure is None
        stacks = defaultdict(list)  # shape -> (part of a parameter, its direction, its group)
        for group in self.param_groups:
            for p in [p for p in group["params"] if p.grad is not None]:
                directions = self.direction(p, group).split(group["rows"])
                for w, d in zip(p.split(group["rows"]), directions, strict=True):
                    stacks[w.shape].append((w, d, group))
        for (R, C), parts in stacks.items():
            U = orthogonal(torch.stack([d for _, d, _ in parts]), self.dtype)
            size = 0.2 * math.sqrt(max(R, C))  # AdamW's usual step, root mean square
            for (w, _, group), u in zip(parts, U, strict=True):
                w.mul_(1 - group["lr"] * group["weight_decay"]).sub_(u, alpha=group["lr"] * size)

    def direction(self, p: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """Nesterov's momentum m of the gradient g: m <- mu m + (1 - mu) g; mu m + (1 - mu) g."""
        state, g = self.state[p], p.grad
        assert g is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        m = state["momentum"].lerp_(g, 1 - group["momentum"])
        return g.lerp(m, group["momentum"])


class CombinedOptimizer:
    """Optimizers for different parameters, stepped, saved and loaded as one.

    In the state dict parameters are counted through, as if all groups were one optimizer's.
    """

    def __init__(self, *optimizers: torch.optim.Optimizer):
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all, the very dictionaries: a new lr in them counts."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        """Let each move its parameters."""
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """{"state": {number of a parameter: its state}, "param_groups": [...]}."""
        state: dict[int, Any] = {}
        groups, first = [], 0
        for optimizer in self.optimizers:
            own = optimizer.state_dict()
            state |= {first + i: values for i, values in own["state"].items()}
            for group in own["param_groups"]:
                groups.append({**group, "params": [first + i for i in group["params"]]})
            first += sum(len(group["params"]) for group in own["param_groups"])
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        state, groups, first = state_dict["state"], iter(state_dict["param_groups"]), 0
        for optimizer in self.optimizers:
            own = [next(groups) for _ in optimizer.param_groups]
            last = first + sum(len(group["params"]) for group in own)
            optimizer.load_state_dict(
                {
                    "state": {i - first: v for i, v in state.items() if first <= i < last},
                    "param_groups": [
                        {**group, "params": [i - first for i in group["params"]]} for group in own
                    ],
                }
            )
            first = last
