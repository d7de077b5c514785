"""A decoding step whose shapes never change, which torch.compile can make one program of."""

from typing import Any

import torch
from torch import Tensor

from model.generation.cache import KVCache, one_query_mask
from model.gpt import TinyGPT


class StaticCacheLayer:
    """One layer's share of a cache, kv (2,B,K,S,D), all S slots of it at every step.

    What CacheLayer does, by a mask instead of a length: position (B,) says where the new token
    goes, attn_mask (B,1,1,S) what it attends to.
    """

    def __init__(self, kv: Tensor, position: Tensor, attn_mask: Tensor) -> None:
        self.kv = kv
        self.position = position
        self.attn_mask = attn_mask

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Put k and v (B,K,1,D) into their slots; give keys, values (B,K,S,D) and the mask."""
        rows = torch.arange(len(k), device=k.device)
        new = torch.stack((k, v))[:, :, :, 0].transpose(0, 1)
        self.kv[:, rows, :, self.position] = new.to(self.kv.dtype)
        return self.kv[0], self.kv[1], self.attn_mask


class CompiledStep:
    """What `generate` takes as `decode_step`: a model's `hidden_states` of one token a row."""

    def __init__(self, model: TinyGPT) -> None:
        if model.cache_dtype is not None:
            raise ValueError(f"a compiled step reads no cache of {model.cache_dtype}")
        self.model = model
        cpu = next(model.parameters()).device.type == "cpu"
        options: dict[str, Any] = {"cpp_wrapper": True} if cpu else {}  # no Python between kernels
        self.compiled = torch.compile(self.step, fullgraph=True, dynamic=False, options=options)

    def __call__(self, idx: Tensor, cache: KVCache) -> Tensor:
        """Hidden states (B,1,C) of idx (B,1). ValueError if the cache has no room for it."""
        if cache.full():
            raise ValueError(f"rows {cache.full()} of the cache are full; make room first")
        cache.make_room(cache.size)  # all of it at once: a program for each size takes a minute
        idx = idx.clone(memory_format=torch.contiguous_format)  # other strides: another program
        position = torch.tensor(cache.lengths, device=idx.device)
        x = self.compiled(idx, position, cache.kv, cache.remember(idx))
        cache.advance(1)
        return x

    def step(
        self, idx: Tensor, position: Tensor, kv: list[Tensor], before: Tensor | None
    ) -> Tensor:
        """Tokens idx (B,1) at position (B,), after those in kv, a (2,B,K,S,D) a layer."""
        S = kv[0].size(-2)
        keys = torch.arange(S, device=position.device)
        attn_mask = one_query_mask(position, keys, self.model.config.window or S)
        layers = [StaticCacheLayer(layer, position, attn_mask) for layer in kv]
        return self.model.forward_blocks(idx, position[:, None], layers, before)
