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

ABC = 3.4445, -4.7750, 2.0315  # aX + b(XX^T)X + c(XX^T)^2X: singular values in (0, 1] go near 1


def orthogonal(X: Tensor, dtype: torch.dtype = torch.float32, steps: int = 5) -> Tensor:
    """The orthogonal matrix near X, for a stack (N,R,C): U V^T of X = U S V^T, but for S near 1.

    Newton and Schulz's iteration, of products only; it ends with S between about 0.7 and 1.2.
    """
    transposed = X.size(1) > X.size(2)
    Y = X.mT if transposed else X  # R <= C, so that Y Y^T is the small one
    Y = (Y / Y.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).to(dtype)
    a, b, c = ABC
    for _ in range(steps):
        G = Y @ Y.mT
        Y = torch.baddbmm(Y, torch.baddbmm(G, G, G, beta=b, alpha=c), Y, beta=a)
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
