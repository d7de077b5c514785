"""Causal self-attention by two roads that agree: the equation as it is, and PyTorch's fused kernel.

Letters: B batch, T queries, S keys (S >= T; the last T keys are the queries' own), C = d_model,
H heads, D = C/H.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from model.config import GPTConfig
from model.positions import rotate


def causal_mask(T: int, S: int, device=None):
    """Which of S keys each of the last T places may see, (T,S) bool.

    The mask hangs at the bottom right, so the last query sees every key:
    T=2, S=3 -> [[1, 1, 0], [1, 1, 1]].
    """
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


def attend_naive(q, k, v, *, causal=True, dropout=0.0):
    """softmax(q k^T / sqrt(D)) v, eq. 1 of Attention Is All You Need.

    q (B,H,T,D), k and v (B,H,S,D) -> (B,H,T,D).
    """
    score = q @ k.mT / math.sqrt(q.size(-1))  # (B,H,T,S)
    if causal:
        score = score.masked_fill(~causal_mask(q.size(-2), k.size(-2), q.device), -math.inf)
    return F.dropout(score.softmax(-1), dropout) @ v


def attend_sdpa(q, k, v, *, causal=True, dropout=0.0):
    """The same by torch's fused kernel (FlashAttention where it runs), which never stores (T,S)."""
    T, S = q.size(-2), k.size(-2)
    # is_causal hangs its mask at the top left, which is right only for T = S
    mask = causal_mask(T, S, q.device) if causal and 1 < T != S else None
    square = causal and T == S > 1
    return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=square)


ATTEND = {"auto": attend_sdpa, "sdpa": attend_sdpa, "naive": attend_naive}


class CausalSelfAttention(nn.Module):
    """Each place gathers from itself and the places before it. (B,T,C) -> (B,T,C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        C, self.n_head, self.dropout = config.d_model, config.n_head, config.dropout
        self.attend = ATTEND[config.attn]
        self.qkv = nn.Linear(C, 3 * C, bias=config.bias)
        self.proj = nn.Linear(C, C, bias=config.bias)

    def forward(self, x, rope=None):
        """Mix x (B,T,C) over time; rope is the pair of tables for these T places, or None."""
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)  # 3 x (B,H,T,D)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        dropout = self.dropout if self.training else 0.0
        y = self.attend(q, k, v, dropout=dropout).transpose(1, 2).reshape(B, T, C)
        return F.dropout(self.proj(y), dropout)
