"""A step of writing whose shapes never change, which torch.compile can make one program of."""

import torch

from model.cache import KVCache


class Slots:
    """One layer's share of a cache, kv (2,B,K,S,D), all S slots of it at every step.

    What model.cache.Past does, by a mask in place of a length: place (B,1) says where the new
    token goes, seen (B,1,1,S) what it looks at.
    """

    def __init__(self, kv, place, seen):
        self.kv, self.place, self.seen = kv, place, seen

    def append(self, k, v):
        """Put k and v (B,K,1,D) into their slots; give keys, values (B,K,S,D) and the mask."""
        rows = torch.arange(len(k), device=k.device)
        new = torch.stack((k, v))[:, :, :, 0].transpose(0, 1)
        self.kv[:, rows, :, self.place[:, 0]] = new.to(self.kv.dtype)
        return self.kv[0], self.kv[1], self.seen


class CompiledStep:
    """In the place of a model's `features`: compiled for one token a row, as it is for more.

    Raises ValueError where the cache has no room for another token.
    """

    def __init__(self, model):
        self.model, self.features = model, model.features
        cpu = next(model.parameters()).device.type == "cpu"  # there no Python between the kernels
        how: dict = {"options": {"cpp_wrapper": True}} if cpu else {}
        self.compiled = torch.compile(self.step, fullgraph=True, dynamic=False, **how)

    def __call__(self, idx, cache: KVCache | None = None):
        """The stream after the last norm, (B,T,C), as `TinyGPT.features`."""
        if cache is None or idx.size(1) > 1 or cache.size < self.model.config.block_size:
            return self.features(idx, cache)  # a prompt's cache is as long as the prompt
        if cache.full():
            raise ValueError(f"rows {cache.full()} of the cache are full; make room first")
        idx = idx.clone(memory_format=torch.contiguous_format)  # other strides: another program
        place = torch.tensor(cache.lengths, device=idx.device)[:, None]
        x = self.compiled(idx, place, cache.kv)
        cache.advance(1)
        return x

    def step(self, idx, place, kv):
        """Tokens idx (B,1) at place (B,1), after those in kv, a (2,B,K,S,D) a layer."""
        S = kv[0].size(-2)
        back = place - torch.arange(S, device=place.device)
        seen = (back >= 0) & (back < (self.model.config.window or S))
        layers = [Slots(layer, place, seen[:, None, None]) for layer in kv]
        return self.model.stream(idx, place, layers)
