"""How much of the validation text also stands in training: runs of 13 equal tokens.

13 as in GPT-3's search for contamination (Brown et al. 2020, appendix C). Memory is bounded: of a
long validation text only those runs are asked for whose hash is 0 modulo k.
"""

from typing import Any

import numpy as np

from data.store import forget_pages

RUN = 13
BLOCK = 1 << 22  # windows hashed at a time
LIMIT = 1 << 22  # windows of validation up to which k is 1: each one is asked for
SHIFT = np.uint64(40)
FACTOR = np.uint64(0x9E3779B97F4A7C15)


def hashes(tokens: np.ndarray) -> np.ndarray:
    """A 64-bit polynomial hash of each window of RUN = 8 + 4 + 1 tokens, (len - RUN + 1,).

    By doubling: the hash of 2n tokens is that of the first n times FACTOR^n, plus that of the rest.
    """
    n = max(0, len(tokens) - RUN + 1)

    def joined(a: np.ndarray, b: np.ndarray, size: int) -> np.ndarray:
        """Hashes of windows of a, each followed by one of `size` tokens of b; it wraps."""
        return a[: len(b)] * np.uint64(pow(int(FACTOR), size, 2**64)) + b

    with np.errstate(over="ignore"):
        one = tokens.astype(np.uint64) + np.uint64(1)
        two = joined(one, one[1:], 1)
        four = joined(two, two[2:], 2)
        eight = joined(four, four[4:], 4)
        h = joined(joined(eight, four[8:], 4), one[12:], 1)[:n]
    h ^= h >> np.uint64(32)
    return h * FACTOR


def sample(val: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of val's windows that are asked for, in order, and how often each occurs."""
    k = np.uint64(1 + max(0, len(val) - RUN) // LIMIT)
    found, counts = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for i in range(0, len(val), BLOCK):
        h = hashes(val[i : i + BLOCK + RUN - 1])
        part = np.unique(h[h % k == 0], return_counts=True)
        found.append(part[0])
        counts.append(part[1])
        forget_pages(val)
    asked, where = np.unique(np.concatenate(found), return_inverse=True)
    return asked, np.bincount(where, np.concatenate(counts), len(asked))


def overlap(train: np.ndarray, val: np.ndarray) -> float:
    """The share of val's windows of 13 tokens that also stand in train, in [0, 1].

    Estimated from a sample of some 4 million windows where val has more.
    """
    asked, count = sample(val)
    found = np.zeros(len(asked), bool)
    maybe = np.zeros(1 << 24, bool)  # by the upper bits: most windows need no search
    maybe[asked >> SHIFT] = True
    for i in range(0, len(train) if len(asked) else 0, BLOCK):
        h = hashes(train[i : i + BLOCK + RUN - 1])
        h = h[maybe[h >> SHIFT]]
        at = np.searchsorted(asked, h).clip(max=len(asked) - 1)
        found[at[asked[at] == h]] = True
        forget_pages(train)
    return float(count[found].sum() / max(1, count.sum()))


def overlap_line(meta: dict[str, Any]) -> str:
    """What to say if over 1 % of validation stands in training too: its loss flatters."""
    share = meta.get("val_overlap", 0.0)  # earlier versions did not count it
    if share <= 0.01:
        return ""
    return (
        f"{share:.1%} of the runs of {RUN} tokens in validation also stand in training; "
        f"its loss tells partly what was learnt by heart"
    )
