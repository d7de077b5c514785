"""Which parameters a GPT has: their names, which are TinyGPT's, their shapes, and its values."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from model.config import GPTConfig
from model.numpy_gpt.layers import Array

Params = dict[str, Array]
Shapes = dict[str, tuple[int, ...]]


def layer(name: str, *shape: int, bias: bool) -> Shapes:
    """A layer's weight, (out,in) or a norm's gain (C,), and its bias, (out,), if it has one."""
    return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})


def block_shapes(name: str, c: GPTConfig) -> Shapes:
    """The parameters of a block. Only LayerNorm has a bias, and norms of queries and keys never."""
    C, D, F = c.d_model, c.head_size, c.hidden
    shift = c.bias and c.norm == "layernorm"
    found = layer(f"{name}.norm1", C, bias=shift)
    found |= layer(f"{name}.attn.qkv", (c.n_head + 2 * c.kv_heads) * D, C, bias=c.bias)
    if c.qk_norm:
        found |= layer(f"{name}.attn.q_norm", D, bias=False)
        found |= layer(f"{name}.attn.k_norm", D, bias=False)
    found |= layer(f"{name}.attn.proj", C, c.n_head * D, bias=c.bias)
    found |= layer(f"{name}.norm2", C, bias=shift)
    if c.gated:
        found |= layer(f"{name}.mlp.gate", F, C, bias=c.bias)
    found |= layer(f"{name}.mlp.up", F, C, bias=c.bias)
    return found | layer(f"{name}.mlp.down", C, F, bias=c.bias)


def shapes(c: GPTConfig) -> Shapes:
    """All parameters of a model; a head that is tied is the token embedding."""
    found = layer("tok_emb", c.vocab_size, c.d_model, bias=False)
    if c.emb_conv:
        found["conv"] = (c.emb_conv, c.d_model)
    if c.pos == "learned":
        found |= layer("pos_emb", c.block_size, c.d_model, bias=False)
    for i in range(c.n_layer):
        found |= block_shapes(f"blocks.{i}", c)
    if c.norm_at == "pre":
        found |= layer("norm", c.d_model, bias=c.bias and c.norm == "layernorm")
    if not c.tie_weights:
        found |= layer("head", c.vocab_size, c.d_model, bias=False)
    return found


def from_torch(state: Mapping[str, Any], c: GPTConfig, dtype: Any = np.float64) -> Params:
    """Parameters from `TinyGPT(c).state_dict()`. ValueError for what is not computed here.

    Dropout is left out, as in eval mode.
    """
    if c.rope_scaling:
        raise ValueError(f"rope_scaling={c.rope_scaling!r} is not computed here; use TinyGPT")
    if c.experts:
        raise ValueError(f"experts={c.experts} are not computed here; use TinyGPT")
    tied = {"head.weight"} if c.tie_weights else set()
    given = {name: tensor for name, tensor in state.items() if name not in tied}
    found = {name: tuple(tensor.shape) for name, tensor in given.items()}
    if odd := sorted(found.items() ^ shapes(c).items()):
        name, want = odd[0][0], shapes(c).get(odd[0][0], "none")
        cure = "give the model's own config, and no adapters"
        raise ValueError(f"{name} is {found.get(name, 'none')}, not {want}; {cure}")
    return {name: t.detach().cpu().double().numpy().astype(dtype) for name, t in given.items()}
