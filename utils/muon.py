"""Muon: a step whose matrix has all its singular values near 1, so that no direction is forgotten.

After Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, with the size of the step after
Liu et al. 2025 (Muon is Scalable for LLM Training, eq. 4): one learning rate serves it and AdamW.
"""

import math
from collections import defaultdict

import torch

ABC = 3.4445, -4.7750, 2.0315  # aX + b(XX^T)X + c(XX^T)^2X: singular values in (0, 1] go near 1


def orthogonal(X, dtype=torch.float32, steps: int = 5):
    """The orthogonal matrix near X, for a stack (N,R,C): U V^T of X = U S V^T, but for S near 1.

    Newton and Schulz's iteration, of products only; it ends with S between about 0.7 and 1.2.
    """
    tall = X.size(1) > X.size(2)
    Y = X.mT if tall else X  # R <= C, so that Y Y^T is the small one
    Y = (Y / Y.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).to(dtype)
    a, b, c = ABC
    for _ in range(steps):
        G = Y @ Y.mT
        Y = torch.baddbmm(Y, torch.baddbmm(G, G, G, beta=b, alpha=c), Y, beta=a)
    return (Y.mT if tall else Y).to(X.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for `matrices`, and `adamw`, which keeps its own parameters, for the rest.

    matrices are groups {"params": [...], "rows": [...]}: rows are the heights of the parts that
    were laid one upon another in each parameter, and are made orthogonal each by itself. Parts of
    one shape, of whichever parameter, go through the products together. `dtype` is of the products.
    """

    def __init__(self, adamw, matrices, *, lr, momentum, weight_decay, dtype=torch.float32):
        ours = {"momentum": momentum, "weight_decay": weight_decay}
        groups = [*adamw.param_groups, *({**group, **ours} for group in matrices)]
        super().__init__(groups, {"lr": lr})
        self.adamw, self.dtype = adamw, dtype

    @torch.no_grad()
    def step(self, closure=None):
        """Move every parameter that has a gradient. A closure is not supported."""
        assert closure is None
        stacks = defaultdict(list)  # shape -> (part of a parameter, its direction, its group)
        for group in [g for g in self.param_groups if "rows" in g]:
            for p in [p for p in group["params"] if p.grad is not None]:
                directions = self.direction(p, group).split(group["rows"])
                for w, d in zip(p.split(group["rows"]), directions, strict=True):
                    stacks[w.shape].append((w, d, group))
        for (R, C), parts in stacks.items():
            U = orthogonal(torch.stack([d for _, d, _ in parts]), self.dtype)
            size = 0.2 * math.sqrt(max(R, C))  # AdamW's usual step, root mean square
            for (w, _, group), u in zip(parts, U, strict=True):
                w.mul_(1 - group["lr"] * group["weight_decay"]).sub_(u, alpha=group["lr"] * size)
        self.adamw.state = self.state
        self.adamw.param_groups = [g for g in self.param_groups if "rows" not in g]
        self.adamw.step()

    def direction(self, p, group):
        """Nesterov's momentum m of the gradient g: m <- mu m + (1 - mu) g; mu m + (1 - mu) g."""
        state = self.state[p]
        m = state.setdefault("momentum", torch.zeros_like(p)).lerp_(p.grad, 1 - group["momentum"])
        return p.grad.lerp(m, group["momentum"])
