"""Self-attention in two implementations that agree: the equation, and PyTorch's fused kernel.

Letters: B batch, T queries, S keys (S >= T; the last T keys are the queries' own), C = d_model,
H heads of D dimensions, K heads of keys and values, each shared by H/K heads in a row. Masks are
bool, True where a query may attend, and broadcast to (B,H,T,S).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import GPTConfig
from model.norm import Norm
from model.positions import rotate

Rope = tuple[Tensor, Tensor]  # cosines and sines


class LayerCache(Protocol):
    """What attention asks of a cache."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keep k and v (B,K,T,D); give all keys and values, and a mask if it takes one."""


def causal_mask(  # exercise: causal-mask
    T: int, S: int, device: torch.device | None = None, *, causal: bool = True, window: int = 0
) -> Tensor:
    """Which of S keys each of the last T positions may attend to, (T,S) bool.

    The mask is aligned bottom-right: T=2, S=3 -> [[1, 1, 0], [1, 1, 1]]. With a window, only
    keys less than that far away: T=2, S=3, window=2 -> [[1, 1, 0], [0, 1, 1]]; without causal,
    as far ahead as back.
    """
    position = torch.arange(S, device=device)
    back = position[S - T :, None] - position  # (T,S), how far back the key is
    mask = back >= 0 if causal else torch.ones_like(back, dtype=torch.bool)
    return mask & (back.abs() < window) if window else mask


def full_mask(
    q: Tensor, k: Tensor, causal: bool, window: int, attn_mask: Tensor | None
) -> Tensor | None:
    """What `causal`, `window` and `attn_mask` allow together; None if that is everything."""
    if attn_mask is not None and (attn_mask.dtype != torch.bool or attn_mask.ndim != 4):
        raise ValueError(f"attn_mask is {attn_mask.dtype}, {attn_mask.ndim}-D; give 4-D bool")
    if not causal and not window:
        return attn_mask
    mask = causal_mask(q.size(2), k.size(2), q.device, causal=causal, window=window)
    return mask if attn_mask is None else mask & attn_mask


def check_dims(*tensors: Tensor) -> None:
    """Raise ValueError for q, k or v without a dimension of heads: T would be taken for one."""
    if any(t.ndim != 4 for t in tensors):
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise ValueError(f"q, k, v have shapes {shapes}; give (B,H,T,D), (B,K,S,D), (B,K,S,D)")


def attend_naive(  # exercise: attention
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int = 0,
    attn_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, eq. 1 of Attention Is All You Need.

    q (B,H,T,D), k and v (B,K,S,D) -> (B,H,T,D). Groups of heads share keys and values if K < H
    (Ainslie et al. 2023); window as in `causal_mask` (Longformer, section 3.1). attn_mask hides
    more, say padding; it has to leave each query a key. ValueError for other than 4 dimensions.
    """
    check_dims(q, k, v)
    k, v = (t.repeat_interleave(q.size(1) // t.size(1), 1) for t in (k, v))  # (B,H,S,D)
    score = q @ k.mT / math.sqrt(q.size(-1))  # (B,H,T,S)
    mask = full_mask(q, k, causal, window, attn_mask)
    if mask is not None:
        score = score.masked_fill(~mask, -math.inf)
    return F.dropout(score.softmax(-1), dropout) @ v


def attend_sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int = 0,
    attn_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """The same by torch's fused kernel (FlashAttention where it runs), which never stores (T,S)."""
    check_dims(q, k, v)
    T, S = q.size(2), k.size(2)
    window = window if window < S else 0  # that wide, it hides nothing
    causal = causal and T > 1  # a single query is the last: no key is ahead of it
    # is_causal aligns its mask top-left, which is right only for T = S
    is_causal = causal and T == S and not window and attn_mask is None
    mask = None if is_causal else full_mask(q, k, causal, window, attn_mask)
    kernel = partial(F.scaled_dot_product_attention, attn_mask=mask, dropout_p=dropout)
    kernel = partial(kernel, is_causal=is_causal, enable_gqa=q.size(1) != k.size(1))
    if v.device.type != "cpu" or v.dtype != torch.bfloat16:
        return kernel(q, k, v)
    with torch.autocast("cpu", enabled=False):  # in bfloat16 its backward takes 5 times as long
        return kernel(q.float(), k.float(), v.float()).to(v.dtype)


AUTO = "sdpa"  # what attn=auto is
ATTEND: dict[str, Callable[..., Tensor]]
ATTEND = {"auto": attend_sdpa, "sdpa": attend_sdpa, "naive": attend_naive}


class CausalSelfAttention(nn.Module):
    """Each position gathers from itself and those before it; all, if not causal. (B,T,C) -> same.

    qk_norm keeps the scores in size by a norm of q and of k (ViT-22B, Dehghani et al. 2023).
    """

    def __init__(self, config: GPTConfig, *, causal: bool = True) -> None:
        super().__init__()
        C, H, K, D = config.d_model, config.n_head, config.kv_heads, config.head_size
        self.causal = causal
        self.heads = (H, K, K)
        self.window = config.window
        self.dropout = config.dropout
        self.attn_dropout = config.attn_dropout
        self.attend = ATTEND[config.attn]
        self.qkv = nn.Linear(C, (H + 2 * K) * D, bias=config.bias)
        self.proj = nn.Linear(H * D, C, bias=config.bias)
        self.qk_norm = config.qk_norm
        if config.qk_norm:  # without bias: one added to every key would cancel in the softmax
            self.q_norm = Norm(D, config.norm, config.norm_eps, bias=False)
            self.k_norm = Norm(D, config.norm, config.norm_eps, bias=False)

    def forward(  # exercise: heads
        self,
        x: Tensor,
        rope: Rope | None = None,
        cache: LayerCache | None = None,
        *,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        """Mix x (B,T,C) over time; rope is the pair of tables for these T positions.

        cache holds the keys and values of the positions before, and keeps these. attn_mask hides
        more keys, say padding by (B,1,1,S). Raises ValueError for both at once.
        """
        B, T, _ = x.shape
        qkv = self.qkv(x).view(B, T, sum(self.heads), -1).transpose(1, 2)  # (B,H+2K,T,D)
        q, k, v = qkv.split(self.heads, 1)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        causal, window = self.causal, self.window
        if cache is not None:
            if attn_mask is not None:
                raise ValueError("attn_mask with a cache, which makes its own; leave one out")
            k, v, attn_mask = cache.append(k, v)
            if attn_mask is not None:  # it has the order of the positions and the window in it
                causal, window = False, 0
        dropout = self.attn_dropout if self.training else 0.0
        kwargs = {"causal": causal, "window": window, "attn_mask": attn_mask, "dropout": dropout}
        y = self.attend(q, k, v, **kwargs)
        y = self.proj(y.transpose(1, 2).reshape(B, T, -1))
        return F.dropout(y, self.dropout, self.training) if self.dropout else y
