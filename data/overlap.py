"""How much of the validation text also stands in training: runs of 13 equal tokens.

13 as in GPT-3's search for contamination (Brown et al. 2020, appendix C).
"""

import numpy as np

RUN = 13
BLOCK = 1 << 22  # windows hashed at a time: bounded memory
SHIFT = np.uint64(40)
FACTOR = np.uint64(0x9E3779B97F4A7C15)


def hashes(tokens: np.ndarray) -> np.ndarray:
    """A 64-bit polynomial hash of each window of RUN tokens, (len - RUN + 1,)."""
    n = max(0, len(tokens) - RUN + 1)
    h = np.zeros(n, np.uint64)
    for i in range(RUN):
        h = h * FACTOR + tokens[i : i + n].astype(np.uint64) + np.uint64(1)  # wraps, as it should
    h ^= h >> np.uint64(32)
    return h * FACTOR


def overlap(train: np.ndarray, val: np.ndarray) -> float:
    """The share of val's windows of 13 tokens that also stand in train, in [0, 1]."""
    asked, count = np.unique(hashes(val), return_counts=True)
    found = np.zeros(len(asked), bool)
    maybe = np.zeros(1 << 24, bool)  # by the upper bits: most windows need no search
    maybe[asked >> SHIFT] = True
    for i in range(0, len(train) if len(asked) else 0, BLOCK):
        h = hashes(train[i : i + BLOCK + RUN - 1])
        h = h[maybe[h >> SHIFT]]
        at = np.searchsorted(asked, h).clip(max=len(asked) - 1)
        found[at[asked[at] == h]] = True
    return float(count[found].sum() / max(1, count.sum()))
