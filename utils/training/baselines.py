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
    """Score of pairs: each token by the one before it, as `bigram` has it."""
    p = bigram(train, val[:-1], val[1:], V)
    return Score(float(-np.log(p).sum()), len(p), n_bytes)


def bigram(train: np.ndarray, x: np.ndarray, y: np.ndarray, V: int) -> np.ndarray:
    """Probabilities of y (N,) after x (N,): p(y|x) = (c(xy) + n(x) p(y)) / (c(x) + n(x)).

    c counts in train, n(x) is how many different tokens follow x there, p(y) is the unigram
    (Witten and Bell 1991).
    """  # exercise: bigram-baseline
    known = train[:-1].astype(np.int64) * V + train[1:]  # a number per pair
    asked = x.astype(np.int64) * V + y
    pairs, c = np.unique(known, return_counts=True)
    at = np.searchsorted(pairs, asked).clip(max=len(pairs) - 1)
    c_xy = np.where(pairs[at] == asked, c[at], 0)
    c_x = np.bincount(train[:-1], minlength=V)
    n = np.bincount(pairs // V, minlength=V)[x]
    p_y = unigram(train, V)[y]
    return np.where(n > 0, (c_xy + n * p_y) / np.maximum(c_x[x] + n, 1), p_y)


def unigram(train: np.ndarray, V: int) -> np.ndarray:
    """Laplace-smoothed frequencies of the V tokens, (V,)."""
    return (np.bincount(train, minlength=V) + 1) / (len(train) + V)
