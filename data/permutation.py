"""A random order of n things, of which any one is found at once and none is stored."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

ROUNDS = 6
MASK = 2**64 - 1


def scramble(z: int) -> int:
    """Mix 64 bits so that each one depends on all (the finalizer of SplitMix64, Steele 2014)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def permuted(i: int, n: int, keys: Sequence[int]) -> int:
    """Where a permutation of range(n), chosen by the keys, sends i. Nothing is stored.

    A run resumes anywhere, so any one index must be found at once; torch.randperm would draw and
    keep all n numbers, in every process. A Feistel network needs no memory: write i as two digits
    (left, right) in base a, a*a >= n. A round adds to left a number that follows from right and a
    key, and swaps the two. Whoever knows right can subtract that number again, so each round is a
    permutation of the a*a pairs, however wild `scramble` is. With n = 7, a = 3 and one round: 5 is
    (1, 2); if the number for 2 is 4, (1 + 4) % 3 = 2 gives (2, 2), which is 8. Not below 7, so it
    goes through again: (2, (2 + 4) % 3) = (2, 0) is 6. Such cycle walking (Black and Rogaway 2002,
    "Ciphers with arbitrary finite domains") keeps it a permutation, now of range(7).
    """
    a = math.isqrt(n - 1) + 1
    while True:
        left, right = divmod(i, a)
        for key in keys:
            left, right = right, (left + scramble(key ^ right)) % a
        i = left * a + right
        if i < n:
            return i


@lru_cache(256)
def keys_of(*numbers: int) -> tuple[int, ...]:
    """ROUNDS + 1 keys of 64 bits that follow from these numbers."""
    return tuple(map(int, np.random.SeedSequence(numbers).generate_state(ROUNDS + 1, np.uint64)))
