"""The rows of a batch that texts join and leave: a KVCache of which the first n rows count."""

import torch
from torch import Tensor

from model.generation.cache import KVCache
from model.generation.caches import new_cache
from model.gpt import TinyGPT


class Rows:
    """Up to `most` rows of up to S tokens, each as long as its text.

    `cache` is what the model reads by: one token in each of the rows that are in use.
    """

    def __init__(self, model: TinyGPT, most: int, S: int) -> None:
        self.cache = new_cache(model, most, S)
        self.all, self.ids = self.cache.rows, self.cache.ids
        self.use([])

    def use(self, lengths: list[int]) -> None:
        """Let the first rows count, and be so long."""
        cache, n = self.cache, len(lengths)
        cache.lengths, cache.rows, cache.ids = lengths, self.all[:n], self.ids[:n]
        for store in cache.stores:
            store.k, store.v = store.kv[:, :n]

    def make_room(self, n: int) -> None:
        """Have slots for n tokens a row."""
        lengths, self.cache.ids = self.cache.lengths, self.ids
        self.cache.make_room(n)
        self.ids = self.cache.ids
        self.use(lengths)

    def join(self, other: KVCache) -> None:
        """Let the next row hold what a cache of one row does."""
        lengths = self.cache.lengths
        row, n = len(lengths), other.lengths[0]
        self.make_room(n)
        for kv, new in zip(self.cache.kv, other.kv, strict=True):
            kv[:, row, :, :n] = new[:, 0, :, :n]
        self.ids[row, :n] = other.ids[0, :n]
        self.use([*lengths, n])

    def leave(self, row: int) -> None:
        """Free a row: the last one in use takes its position."""
        lengths = self.cache.lengths
        last, n = len(lengths) - 1, lengths[-1]
        if row != last:
            for kv in self.cache.kv:
                kv[:, row, :, :n] = kv[:, last, :, :n]
            self.ids[row, :n] = self.ids[last, :n]
            lengths[row] = n
        self.use(lengths[:-1])

    def open_next(self) -> None:
        """Have room for another token in each row."""
        self.make_room(max(self.cache.lengths) + 1)


def last_tokens(ids: list[int], like: Tensor) -> Tensor:
    """Ids as the model reads them, one a row: (B,1)."""
    return torch.tensor(ids, device=like.device)[:, None]
