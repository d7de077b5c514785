"""Norms: scale each vector of x (...,C) to one size, then by a learnt gain per dimension."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Norm(nn.Module):
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019) over the last dimension.

    layernorm: (x - mean(x)) / sqrt(var(x) + eps) * gain + bias, by torch's fused kernel.
    rmsnorm: x / sqrt(mean(x^2) + eps) * gain; it has no bias.
    """

    def __init__(self, size: int, kind: str, eps: float, bias: bool) -> None:
        super().__init__()
        self.kind = kind
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias and kind == "layernorm" else None

    def forward(self, x: Tensor) -> Tensor:  # exercise: norm
        """Normalise x (...,size)."""
        if self.kind == "rmsnorm":
            return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
