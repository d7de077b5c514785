"""Keys and values of the tokens that were read, kept so that no step computes them again.

Letters: B rows, K heads of keys and values, S slots, D = C/H. A slot is a place: row i fills its
first lengths[i] slots, and a new token goes into the next. It knows nothing of text.
"""

import torch

from model.config import GPTConfig
from model.positions import rope_table, rotate


class Past:
    """One layer's share of a KVCache, kv (2,B,K,S,D)."""

    def __init__(self, cache: "KVCache", kv: torch.Tensor):
        self.cache, self.kv = cache, kv

    def append(self, k, v):
        """Put k and v (B,K,T,D) into their slots; give all that the new tokens may look at.

        Keys, values (B,K,S',D), and which of them each row sees (B,1,1,S') bool, or None where the
        causal mask says it.
        """
        cache = self.cache
        if cache.seen is None:
            torch.stack((k, v), out=self.kv.narrow(3, cache.lengths[0], k.size(2)))
        else:  # rows of different lengths: each has a slot of its own
            new = torch.stack((k, v))[:, :, :, 0].transpose(0, 1)
            self.kv[:, cache.rows, :, cache.slots] = new.to(self.kv.dtype)  # autocast has another
        k, v = self.kv.narrow(3, cache.first, cache.last - cache.first)
        return k, v, cache.seen


class KVCache:
    """Room for S tokens (default block_size) in each of B rows, made once: a (2,B,K,S,D) a layer.

    `model.features(idx, cache)` reads idx (B,T) as what follows the tokens that it holds; without
    gradients, so call it under torch.no_grad or inference_mode.
    """

    def __init__(self, config: GPTConfig, B: int, S: int | None = None, *, device=None, dtype=None):
        self.config, self.lengths = config, [0] * B
        self.size = config.block_size if S is None else S
        D = config.d_model // config.n_head
        shape = 2, B, config.kv_heads, self.size, D  # zeros, since what is masked must be finite
        self.kv = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layer)]
        self.layers = [Past(self, kv) for kv in self.kv]
        self.rows = torch.arange(B, device=device)
        self.slots = self.rows  # of the new tokens, where the rows' lengths differ
        self.seen: torch.Tensor | None = None  # (B,1,1,S'), the same for all layers
        self.first = self.last = 0  # the slots that the new tokens look at

    def open(self, B: int, T: int) -> slice | torch.Tensor:
        """Prepare for T tokens in each of B rows; gives their places.

        They are a slice, or (B,1) where lengths differ. Raises ValueError for more than there is
        room for, T > 1 where lengths differ, or another B.
        """
        if len(self.lengths) != B:
            raise ValueError(f"{B} rows for a cache of {len(self.lengths)}; make one of {B}")
        n, longest = min(self.lengths), max(self.lengths)
        if longest + T > self.size:
            raise ValueError(f"{longest} + {T} tokens exceed {self.size} slots; make room first")
        if n < longest and T > 1:
            raise ValueError(f"{T} tokens a row, of lengths {n} to {longest}; give one at a time")
        window = self.config.window or self.size
        self.first, self.last, self.seen = max(0, n + 1 - window), longest + T, None
        if n == longest:
            return slice(n, n + T)
        self.slots = torch.tensor(self.lengths, device=self.rows.device)
        back = self.slots[:, None] - torch.arange(self.first, self.last, device=self.rows.device)
        self.seen = ((back >= 0) & (back < window))[:, None, None]  # as in causal_mask
        return self.slots[:, None]

    def advance(self, T: int) -> None:
        """Count the T tokens a row that every layer has appended."""
        self.lengths = [n + T for n in self.lengths]

    def full(self) -> list[int]:
        """Rows without room for another token."""
        return [i for i, n in enumerate(self.lengths) if n == self.size]

    def paste(self, rows: list[int], other: "KVCache", lengths: list[int]) -> None:
        """Let these rows hold what another cache holds: of its row i the first lengths[i] slots."""
        for kv, new in zip(self.kv, other.kv, strict=True):
            kv[:, rows, :, : other.size] = new
        for row, n in zip(rows, lengths, strict=True):
            self.lengths[row] = n

    def slide(self, rows: list[int]) -> None:
        """Let the last window - 1 places of full rows, all that the next token sees, be the first.

        Only the distance of places counts (RoFormer, eq. 16), so keys that move back by m places
        are turned back by m angles.
        """
        c = self.config
        n = c.window - 1
        m = self.size - n
        cos, sin = (t[m] for t in rope_table(m + 1, c.d_model // c.n_head, c.rope_theta))
        for kv in self.kv:
            moved = kv[:, rows, :, m:]
            if c.pos == "rope":
                moved[0] = rotate(moved[0], cos.to(kv), -sin.to(kv))
            kv[:, rows, :, :n] = moved
        for row in rows:
            self.lengths[row] = n
