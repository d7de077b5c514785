"""What a model computes on its way: the residual stream, and where each head attends.

Letters: B batch, T time, L blocks, H heads, C = d_model.
"""

import torch
from torch import Tensor

from model.attention import CausalSelfAttention, Rope, attend_naive
from model.gpt import Block, TinyGPT
from model.positions import rotate


def attention_weights(attn: CausalSelfAttention, x: Tensor, rope: Rope | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D)) of an attention that reads x: (B,T,C) -> (B,H,T,T).

    It is what attention gives where the value of position s is one-hot: 1 in dimension s.
    """
    B, T, _ = x.shape
    q, k, _ = attn.qkv(x).view(B, T, sum(attn.heads), -1).transpose(1, 2).split(attn.heads, 1)
    if attn.qk_norm:
        q, k = attn.q_norm(q), attn.k_norm(k)
    if rope is not None:
        q, k = rotate(q, *rope), rotate(k, *rope)
    one_hot = torch.eye(T, dtype=x.dtype, device=x.device).expand(B, attn.heads[1], T, T)
    return attend_naive(q, k, one_hot, causal=attn.causal, window=attn.window)


def walk(model: TinyGPT, idx: Tensor) -> tuple[Tensor, Tensor]:
    """The residual stream before block 1 and after each, and what heads attend to.

    idx (T,) -> (L+1,T,C), (L,H,T,T).
    """
    T = len(idx)
    x = model.embed(idx[None], slice(T))
    rope = model.rope(T, slice(T)) if model.config.pos == "rope" else None
    stream, attention = [x], []
    for block in model.blocks:
        assert isinstance(block, Block)
        read = x if block.post else block.norm1(x)
        attention.append(attention_weights(block.attn, read, rope))
        x = block(x, rope)
        stream.append(x)
    return torch.cat(stream), torch.cat(attention)
