"""What prompts begin with, kept: keys and values of whole blocks, found by their ids.

A block is BLOCK tokens of a prompt, and its name the hash of all ids up to its end, so equal blocks
after different beginnings are different. Blocks are copied into a row, never shared: a row may do
with them what it likes, and a block may be dropped at any time.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from model.generation.cache import KVCache

BLOCK = 64  # tokens: a prompt is read by as many at a time, whether its beginning was found or not


def block_names(ids: Sequence[int]) -> Iterator[bytes]:
    """Name the whole blocks of a prompt, one after the other."""
    name = hashlib.sha256()
    for end in range(BLOCK, len(ids) + 1, BLOCK):
        name.update(torch.tensor(ids[end - BLOCK : end]).numpy().tobytes())
        yield name.copy().digest()


class Prefixes:
    """Blocks of prompts up to so many bytes; of more, those that were not used longest go."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self.blocks: OrderedDict[bytes, list[Tensor]] = OrderedDict()  # a (2,1,K,BLOCK,D) a layer

    def find(self, ids: Sequence[int], cache: KVCache) -> int:
        """Fill an empty cache of one row with what is known of ids; gives how many tokens that is.

        The last id is never among them: somebody has to compute its logits.
        """
        found = []
        for name in block_names(ids[:-1]):
            if name not in self.blocks:
                break
            found.append(name)
        n = BLOCK * len(found)
        cache.make_room(n)
        for i, name in enumerate(found):
            for store, kv in zip(cache.kv, self.blocks[name], strict=True):
                store[:, :, :, i * BLOCK : (i + 1) * BLOCK] = kv
        cache.ids[0, :n] = torch.tensor(ids[:n])
        cache.lengths = [n]
        return n

    def keep(self, ids: Sequence[int], cache: KVCache) -> None:
        """Keep the whole blocks of ids, which a cache of one row holds."""
        names = list(block_names(ids))
        for i, name in enumerate(names):
            if name not in self.blocks:
                block = [kv[:, :, :, i * BLOCK : (i + 1) * BLOCK].clone() for kv in cache.kv]
                self.blocks[name] = block
                self.bytes += size_of(block)
        for name in reversed(names):  # the beginning is the newest: without it the rest is lost
            self.blocks.move_to_end(name)
        while self.bytes > self.most_bytes:
            self.bytes -= size_of(self.blocks.popitem(last=False)[1])


def size_of(block: list[Tensor]) -> int:
    """Bytes of a block."""
    return sum(kv.nbytes for kv in block)
