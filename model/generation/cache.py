"""Keys and values of the tokens that were read, kept so that no step computes them again.

Letters: B rows, K heads of keys and values, S slots, D = C/H. A slot is a position: row i fills
its first lengths[i] slots, and a new token goes into the next. It knows ids, and nothing of text.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from model.attention import LayerCache
from model.config import GPTConfig
from model.positions import rope_table, rotate

ROOM = 256  # slots at first; zeros for a context of 8,192 took longer than 60 tokens of SmolLM2


class CacheLayer:
    """One layer's share of a KVCache, kv (2,B,K,S,D)."""

    more = 0  # columns beside the D

    def __init__(self, cache: "KVCache", kv: Tensor) -> None:
        self.cache = cache
        self.hold(kv)

    def hold(self, kv: Tensor) -> None:
        """Have other slots."""
        self.kv = kv
        self.k, self.v = kv

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Put k and v (B,K,T,D) into their slots; give what the new tokens may attend to.

        Keys, values (B,K,S',D), and a mask (B,1,1,S'), or None where the causal mask is enough.
        """  # exercise: kv-cache
        cache = self.cache
        if cache.attn_mask is None:
            n, T = cache.lengths[0], k.size(2)
            self.k.narrow(2, n, T).copy_(k)
            self.v.narrow(2, n, T).copy_(v)
        else:  # rows of different lengths: each has a slot of its own
            new = torch.stack((k, v))[:, :, :, 0].transpose(0, 1)
            new = new.to(self.kv.dtype)  # autocast has another
            self.kv[:, cache.rows, :, cache.slots] = new
        first, S = cache.first, cache.last - cache.first
        return self.k.narrow(2, first, S), self.v.narrow(2, first, S), cache.attn_mask


class KVCache:
    """Up to S tokens (default block_size) in each of B rows: a (2,B,K,S',D) a layer.

    `model.hidden_states(idx, cache)` reads idx (B,T) as what follows the tokens that it holds;
    without gradients, so call it under torch.no_grad or inference_mode. There are ROOM slots at
    first, and twice as many whenever they are full, S in the end.
    """

    def __init__(
        self,
        config: GPTConfig,
        B: int,
        S: int | None = None,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        layer: type[CacheLayer] = CacheLayer,
    ) -> None:
        self.config = config
        self.lengths = [0] * B
        self.size = config.block_size if S is None else S
        D = config.head_size + layer.more
        room = min(self.size, ROOM)
        shape = 2, B, config.kv_heads, room, D  # zeros, since what is masked must be finite
        kv = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layer)]
        self.stores = [layer(self, new) for new in kv]
        self.layers: Sequence[LayerCache] = self.stores
        self.ids = torch.zeros(B, room, dtype=torch.long, device=device)  # of the tokens it holds
        self.slid = False  # whether its keys and values know of tokens that it has no more
        self.rows = torch.arange(B, device=device)
        self.slots = self.rows  # of the new tokens, where the rows' lengths differ
        self.attn_mask: Tensor | None = None  # (B,1,1,S'), the same for all layers
        self.first = 0  # the new tokens attend to slots first to last - 1
        self.last = 0

    @property
    def kv(self) -> list[Tensor]:
        """Keys and values of each layer, (2,B,K,S',D)."""
        return [store.kv for store in self.stores]

    def make_room(self, n: int) -> None:
        """Have slots for n tokens a row, `size` at most."""
        room = self.ids.size(1)
        if n > room:  # doubled: a token is moved once at most, all in all
            S = min(self.size, max(n, 2 * room))
            for store in self.stores:  # a few are longer if memory ran out at the next one
                store.hold(F.pad(store.kv, (0, 0, 0, S - store.kv.size(3))))
            self.ids = F.pad(self.ids, (0, S - room))

    def open(self, B: int, T: int) -> slice | Tensor:
        """Prepare for T tokens in each of B rows; gives their positions.

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
        self.make_room(longest + T)
        window = self.config.window or self.size
        self.first = max(0, n + 1 - window)
        self.last = longest + T
        self.attn_mask = None
        if n == longest:
            return slice(n, n + T)
        self.slots = torch.tensor(self.lengths, device=self.rows.device)
        keys = torch.arange(self.first, self.last, device=self.rows.device)
        self.attn_mask = one_query_mask(self.slots, keys, window)
        return self.slots[:, None]

    def remember(self, idx: Tensor) -> Tensor | None:
        """Keep the ids (B,T). With emb_conv = n + 1: the n before them, -1 where none is."""
        n, T = max(0, self.config.emb_conv - 1), idx.size(1)
        if n == 0 and min(self.lengths) == max(self.lengths):  # the usual case in two calls
            self.ids.narrow(1, self.lengths[0], T).copy_(idx)
            return None
        first = torch.tensor(self.lengths, device=idx.device)[:, None]
        slots = first + torch.arange(-n, T, device=idx.device)  # (B,n+T)
        self.ids.scatter_(1, slots[:, n:], idx)
        before = slots[:, :n]
        return self.ids.gather(1, before.clamp(min=0)).where(before >= 0, -1) if n else None

    def keep(self, ids: Tensor) -> int:
        """Of a single row, keep only what the text ids (N,) begins with; gives how many tokens.

        Holding 5, 6, 7 and given 5, 6, 8, 9 -> holding 5, 6, and 2.
        """
        n = 0 if self.slid else min(self.lengths[0], len(ids))
        n = int((self.ids[0, :n] == ids[:n]).cumprod(0).sum())
        self.lengths, self.slid = [n], False
        return n

    def advance(self, T: int) -> None:
        """Count the T tokens a row that every layer has appended."""
        self.lengths = [n + T for n in self.lengths]

    def full(self) -> list[int]:
        """Rows without room for another token."""
        return [i for i, n in enumerate(self.lengths) if n == self.size]

    def paste(self, rows: list[int], other: "KVCache", lengths: list[int]) -> None:
        """Let these rows hold what another cache holds: of its row i the first lengths[i] slots."""
        T = max(lengths)
        self.make_room(T)
        for kv, new in zip(self.kv, other.kv, strict=True):
            kv[:, rows, :, :T] = new[..., :T, :]
        self.ids[rows, :T] = other.ids[:, :T]
        for row, n in zip(rows, lengths, strict=True):
            self.lengths[row] = n

    def slide(self, rows: list[int]) -> None:
        """Keep of full rows the last window - 1 positions, all that the next token attends to.

        (emb_conv - 1, if that is more.) Only the distance of positions counts (RoFormer, eq. 16),
        so keys that move back by m positions are rotated back by m angles.
        """
        c = self.config
        n = max(c.window, c.emb_conv) - 1
        m = self.size - n
        cos, sin = rope_table(torch.tensor(m), *c.rope)
        if c.rope_scaling:  # YaRN's size, which the keys have in them already
            size = (cos.square() + sin.square()).sqrt()
            cos, sin = cos / size, sin / size
        for kv in self.kv:
            moved = kv[:, rows, :, m:]
            if c.pos == "rope":
                moved[0] = rotate(moved[0], cos.to(kv), -sin.to(kv))
            kv[:, rows, :, :n] = moved
        self.ids[rows, :n] = self.ids[rows, m:]
        self.slid = True
        for row in rows:
            self.lengths[row] = n


def one_query_mask(positions: Tensor, keys: Tensor, window: int) -> Tensor:
    """Which keys (S',) a query at its row's position (B,) may attend to, (B,1,1,S') bool."""
    back = positions[:, None] - keys
    mask = (back >= 0) & (back < window)  # as in causal_mask
    return mask[:, None, None]
