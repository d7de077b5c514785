"""The cache that a model writes with: of its own dtype, or in int8, a quarter of the memory.

`model.cache_dtype = torch.int8` asks for it. A vector of D numbers is then D integers and a scale,
v = s q, s = max |v| / 127, in D + 2 bytes; all that copies slots copies both.
"""

import torch
from torch import Tensor

from model.generation.cache import CacheLayer, KVCache
from model.gpt import TinyGPT

SCALE = 2  # bytes: float16


def in_bytes(x: Tensor) -> Tensor:
    """Vectors (...,D) rounded to 255 values each, int8 (...,D+2): [0, 3, -6] -> [0, 64, -127]."""
    scale = (x.float().abs().amax(-1, keepdim=True) / 127).half()
    q = (x.float() / torch.where(scale == 0, 1, scale)).round().clamp(-127, 127)
    return torch.cat((q.to(torch.int8), scale.view(torch.int8)), -1)


def from_bytes(x: Tensor) -> Tensor:
    """What `in_bytes` stands for, float32 (...,D)."""
    own = x[..., -SCALE:].clone(memory_format=torch.contiguous_format)  # else at an odd address
    return x[..., :-SCALE].float().mul_(own.view(torch.float16))


class Int8CacheLayer(CacheLayer):
    """A CacheLayer that keeps bytes, and gives what they stand for."""

    more = SCALE

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """As CacheLayer does."""
        keys, values, attn_mask = super().append(in_bytes(k), in_bytes(v))
        return from_bytes(keys).to(k.dtype), from_bytes(values).to(v.dtype), attn_mask


def new_cache(model: TinyGPT, B: int, S: int | None = None) -> KVCache:
    """An empty KVCache for a model, on its device.

    Raises ValueError for another cache_dtype than int8, or int8 where a window slides: keys that
    move back are rotated there.
    """
    weight, dtype = next(model.parameters()), model.cache_dtype
    if dtype is None:
        return KVCache(model.config, B, S, device=weight.device, dtype=weight.dtype)
    if dtype != torch.int8:
        raise ValueError(f"cache_dtype={dtype} must be torch.int8, or None for the weights' own")
    if model.config.slides:
        raise ValueError("a cache in int8 does not go with a window that slides; leave it out")
    return KVCache(model.config, B, S, device=weight.device, dtype=dtype, layer=Int8CacheLayer)
