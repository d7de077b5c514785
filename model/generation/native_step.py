"""A decoding step through all blocks in one call of our library in C++ (`model.native`).

Letters: B rows, L layers, C = d_model, H heads, K of keys and values, D = C/H.
"""

import ctypes
from ctypes import c_float, c_int32, c_int64, c_void_p
from itertools import chain

import torch
from torch import Tensor, nn

from model.attention import Rope
from model.generation.cache import KVCache
from model.gpt import Block, TinyGPT
from model.native import GROUP, LANES, LinearC, native_of
from model.norm import Norm

ACTS = {"swiglu": 0, "gelu": 1, "geglu": 1, "gelu_tanh": 2, "relu": 3, "relu2": 4}


class NormC(ctypes.Structure):
    """`Norm` of native.cpp."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p))


class LayerC(ctypes.Structure):
    """`Layer` of native.cpp."""

    _fields_ = (
        *((name, LinearC) for name in ("qkv", "proj", "gate", "up", "down")),
        *((name, NormC) for name in ("norm1", "norm2")),
    )


class ShapeC(ctypes.Structure):
    """`Shape` of native.cpp."""

    _fields_ = (
        *((name, c_int32) for name in ("layers", "C", "H", "K", "hidden")),
        *((name, c_int32) for name in ("window", "act", "layernorm")),
        ("eps", c_float),
    )


def pointer(t: Tensor | None) -> int | None:
    """Where a tensor's values are."""
    return None if t is None else t.data_ptr()


def norm_c(norm: Norm) -> NormC:
    """A norm's parameters."""
    return NormC(norm.weight.data_ptr(), pointer(norm.bias))


def can_step_natively(model: TinyGPT) -> bool:
    """Whether the library computes what the blocks do, all of whose layers it has."""
    c = model.config
    layers = [m for m in model.blocks.modules() if isinstance(m, nn.Linear)]
    sizes = c.head_size * c.n_head == c.d_model and c.head_size % LANES == c.hidden % GROUP == 0
    plain = c.norm_at == "pre" and not c.qk_norm and c.mlp in ACTS
    floats = all(p.dtype == torch.float32 for p in model.parameters())
    return sizes and plain and floats and all(native_of(m) is not None for m in layers)


def layer_c(block: Block) -> LayerC:
    """What the library wants to know of a block."""
    attn, mlp = block.attn, block.mlp
    layers = [native_of(m) for m in (attn.qkv, attn.proj, mlp.gate, mlp.up, mlp.down)]
    parts = [LinearC() if layer is None else layer.c for layer in layers]
    return LayerC(*parts, norm_c(block.norm1), norm_c(block.norm2))


def turns_of(rope: Rope, B: int) -> Tensor:
    """Each row's cosines and sines side by side, (B,D)."""
    D = 2 * rope[0].size(-1)
    return torch.cat(rope, -1).view(-1, D).expand(B, D).contiguous()


class NativeBlocks:
    """All blocks of a model that read one token in each of B rows."""

    def __init__(self, model: TinyGPT) -> None:
        c, blocks = model.config, [b for b in model.blocks if isinstance(b, Block)]
        self.layers = (LayerC * len(blocks))(*map(layer_c, blocks))
        sizes = len(blocks), c.d_model, c.n_head, c.kv_heads, c.hidden
        layernorm = c.norm == "layernorm"
        self.shape = ShapeC(*sizes, c.window, ACTS[c.mlp], layernorm, c.norm_eps)
        first = native_of(blocks[0].attn.qkv)
        assert first is not None
        self.lib, self.model = first.lib, model  # which owns what addresses are of

    def takes(self, x: Tensor, cache: KVCache) -> bool:
        """Whether residual stream and cache are such as the library reads."""
        kv = cache.stores[0].k
        whole = kv.stride(3) == 1 and kv.stride(2) == kv.size(3)
        same = x.dtype == kv.dtype == torch.float32 and cache.layers is cache.stores
        return same and whole and x.is_cpu and not torch.is_autocast_enabled("cpu")

    def __call__(self, x: Tensor, rope: Rope | None, cache: KVCache) -> Tensor:
        """The residual stream x (B,C) after all blocks; cache gets each row's key and value."""
        x, B, stores = x.clone(), len(x), cache.stores
        turns = None if rope is None else turns_of(rope, B)
        kv = chain.from_iterable((s.k.data_ptr(), s.v.data_ptr()) for s in stores)
        how = ctypes.byref(self.shape), self.layers, B, torch.get_num_threads()
        data = c_void_p(x.data_ptr()), c_void_p(pointer(turns)), (c_int64 * B)(*cache.lengths)
        strides = map(c_int64, stores[0].k.stride()[:2])  # of a row, of a head
        self.lib.step(*how, *data, (c_void_p * (2 * len(stores)))(*kv), *strides)
        return x
