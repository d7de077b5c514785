"""What a model must beat: the scores that frequencies alone reach on a validation split."""

import math

import numpy as np

from utils.training.score import Score


def uniform_baseline(val: np.ndarray, V: int, n_bytes: int) -> Score:
    """Score of knowing nothing: ln V a token. An untrained model starts here."""
    return Score(math.log(V) * (len(val) - 1), len(val) - 1, n_bytes)


def unigram_baseline(train: np.ndarray, val: np.ndarray, V: int, n_bytes: int) -> Score:
    """Score of train's frequencies alone, by Laplace's rule: p(y) = (count + 1) / (N + V)."""
    p = unigram(train, V)
    return Score(float(-np.log(p[val[1:]]).sum()), len(val) - 1, n_bytes)


def bigram_baseline(train: np.ndarray, val: np.ndarray, V: int, n_bytes: int) -> Score:
    """Score of pairs: p(y|x) = (c(xy) + n(x) p(y)) / (c(x) + n(x)), Witten and Bell 1991.

    c counts in train, n(x) is how many different tokens follow x there, p(y) is the unigram.
    """  # exercise: bigram-baseline
    x, y = val[:-1], val[1:]
    known, asked = (t[:-1].astype(np.int64) * V + t[1:] for t in (train, val))  # a number per pair
    pairs, c = np.unique(known, return_counts=True)
    at = np.searchsorted(pairs, asked).clip(max=len(pairs) - 1)
    c_xy = np.where(pairs[at] == asked, c[at], 0)
    c_x = np.bincount(train[:-1], minlength=V)
    n = np.bincount(pairs // V, minlength=V)[x]
    p_y = unigram(train, V)[y]
    p = np.where(n > 0, (c_xy + n * p_y) / np.maximum(c_x[x] + n, 1), p_y)
    return Score(float(-np.log(p).sum()), len(y), n_bytes)


def unigram(train: np.ndarray, V: int) -> np.ndarray:
    """Laplace-smoothed frequencies of the V tokens, (V,)."""
    return (np.bincount(train, minlength=V) + 1) / (len(train) + V)
