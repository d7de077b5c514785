"""Causal self-attention by two roads that agree: the equation as it is, and PyTorch's fused kernel.

Letters: B batch, T queries, S keys (S >= T; the last T keys are the queries' own), C = d_model,
H heads, D = C/H, K heads of keys and values, each shared by H/K heads in a row.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from model.config import GPTConfig
from model.norm import Norm
from model.positions import rotate


def causal_mask(T: int, S: int, device=None, *, causal=True, window=0):
    """Which of S keys each of the last T places may see, (T,S) bool.

    The mask hangs at the bottom right, so the last query sees every key:
    T=2, S=3 -> [[1, 1, 0], [1, 1, 1]]. With a window, only keys less than that far away:
    T=2, S=3, window=2 -> [[1, 1, 0], [0, 1, 1]]; without causal, as far ahead as back.
    """
    place = torch.arange(S, device=device)
    back = place[S - T :, None] - place  # (T,S), how far back the key is
    seen = back >= 0 if causal else torch.ones_like(back, dtype=torch.bool)
    return seen & (back.abs() < window) if window else seen


def attend_naive(q, k, v, *, causal=True, window=0, seen=None, dropout=0.0):
    """softmax(q k^T / sqrt(D)) v, eq. 1 of Attention Is All You Need.

    q (B,H,T,D), k and v (B,K,S,D) -> (B,H,T,D). Fewer keys' heads than H are shared by groups
    (Ainslie et al. 2023); window as in `causal_mask` (Longformer, section 3.1). `seen`, bool to
    (B,H,T,S), stands in the place of both where the rows of a batch differ.
    """
    k, v = (t.repeat_interleave(q.size(1) // t.size(1), 1) for t in (k, v))  # (B,H,S,D)
    score = q @ k.mT / math.sqrt(q.size(-1))  # (B,H,T,S)
    if seen is None and (causal or window):
        seen = causal_mask(q.size(-2), k.size(-2), q.device, causal=causal, window=window)
    if seen is not None:
        score = score.masked_fill(~seen, -math.inf)
    return F.dropout(score.softmax(-1), dropout) @ v


def attend_sdpa(q, k, v, *, causal=True, window=0, seen=None, dropout=0.0):
    """The same by torch's fused kernel (FlashAttention where it runs), which never stores (T,S)."""
    if v.device.type == "cpu" and v.dtype == torch.bfloat16:  # its backward takes 5 times as long
        with torch.autocast("cpu", enabled=False):
            kwargs = {"causal": causal, "window": window, "seen": seen, "dropout": dropout}
            return attend_sdpa(q.float(), k.float(), v.float(), **kwargs).to(v.dtype)
    T, S = q.size(-2), k.size(-2)
    window = window if window < S else 0  # that wide, it hides nothing
    # is_causal hangs its mask at the top left, which is right only for T = S
    square = causal and T == S and not window and seen is None
    if seen is None and (window or (causal and 1 < T != S)):
        seen = causal_mask(T, S, q.device, causal=causal, window=window)
    return F.scaled_dot_product_attention(
        q, k, v, seen, dropout, is_causal=square, enable_gqa=q.size(1) != k.size(1)
    )


AUTO = "sdpa" if hasattr(F, "scaled_dot_product_attention") else "naive"
ATTEND = {"sdpa": attend_sdpa, "naive": attend_naive}
ATTEND["auto"] = ATTEND[AUTO]


class CausalSelfAttention(nn.Module):
    """Each place gathers from itself and the places before it. (B,T,C) -> (B,T,C).

    qk_norm keeps the scores in size by a norm of q and of k (ViT-22B, Dehghani et al. 2023).
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        C, H, K = config.d_model, config.n_head, config.kv_heads
        D = C // H
        self.heads, self.window, self.dropout = (H, K, K), config.window, config.dropout
        self.attend = ATTEND[config.attn]
        self.qkv = nn.Linear(C, (H + 2 * K) * D, bias=config.bias)
        self.proj = nn.Linear(C, C, bias=config.bias)
        self.qk_norm = config.qk_norm
        if config.qk_norm:  # without bias: one added to every key would cancel in the softmax
            self.q_norm = Norm(D, config.norm, config.norm_eps, bias=False)
            self.k_norm = Norm(D, config.norm, config.norm_eps, bias=False)

    def forward(self, x, rope=None, past=None):
        """Mix x (B,T,C) over time; rope is the pair of tables for these T places, or None.

        past (`model.cache.Past`) holds the keys and values of the places before, and takes these.
        """
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, sum(self.heads), -1).transpose(1, 2)  # (B,H+2K,T,D)
        q, k, v = qkv.split(self.heads, 1)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        dropout = self.dropout if self.training else 0.0
        seen = None
        if past is not None:
            k, v, seen = past.append(k, v)
        y = self.attend(q, k, v, window=self.window, seen=seen, dropout=dropout)
        y = self.proj(y.transpose(1, 2).reshape(B, T, C))
        return F.dropout(y, dropout) if dropout else y  # a call saved: writing has one token a step
