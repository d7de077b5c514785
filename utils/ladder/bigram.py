"""A bigram that writes: a table of what follows each character, twice, and the tables agree.

By counting:          p(b|a) = (count(ab) + 1) / (count(a) + V)
By gradient descent:  p(b|a) = softmax(W[a])[b],  loss = -sum over ab of (count(ab) + 1) ln p(b|a)

The gradient of W[a,b] is (count(a) + V) p(b|a) - (count(ab) + 1). It is 0 where p is the table
that was counted: there gradient descent ends. python -m utils.ladder.bigram
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tok.cli import run
from utils.ladder.corpus import Corpus, Result, opened, scaled, write
from utils.ladder.network import softmax

LR, STEPS = 3.0, 10_000  # below LR = 4 it converges: no curvature of ln softmax exceeds 1/2


def pair_counts(ids: np.ndarray, V: int) -> np.ndarray:
    """How often each id follows each, plus 1: (V,V). [0, 1, 0], V=2 -> [[1, 2], [2, 1]]."""
    pairs = ids[:-1] * V + ids[1:]
    return np.bincount(pairs, minlength=V * V).reshape(V, V) + 1.0


def counted(corpus: Corpus) -> np.ndarray:
    """p(b|a) by counting, (V,V): rows sum to 1."""
    counts = pair_counts(corpus.train, corpus.V)
    return counts / counts.sum(1, keepdims=True)


def gradient(W: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Of the loss -sum count(ab) ln p(b|a), p = softmax(W): count(a) p(b|a) - count(ab). (V,V)"""
    return counts.sum(1, keepdims=True) * softmax(W) - counts


def descended(corpus: Corpus, steps: int = STEPS) -> np.ndarray:
    """p(b|a) by gradient descent on W (V,V), from 0: a network of one layer. Rows sum to 1.

    All the text at each step, equal pairs added up. Each row has its own learning rate, or the
    frequent characters would have learnt all before the rare ones had begun.
    """
    counts = pair_counts(corpus.train, corpus.V)
    W, lr = np.zeros_like(counts), LR / counts.sum(1, keepdims=True)
    for _ in range(steps):
        W -= lr * gradient(W, counts)
    return softmax(W)


def score(corpus: Corpus, p: np.ndarray) -> float:
    """Bits per byte of the held-out text by the table p (V,V)."""
    ids = corpus.after(1)
    return corpus.bits_per_byte(float(-np.log(p[ids[:-1], ids[1:]]).sum()))


def written(corpus: Corpus, p: np.ndarray, n: int = 200) -> str:
    """n characters drawn from the table p (V,V), each by the one before."""
    return corpus.decode(write(lambda ids: p[ids[-1]], corpus.val[:1], n))


def climb(corpus: Corpus, effort: float = 1.0) -> Iterator[Result]:
    """Count, then descend."""
    sees, params = "the last character", corpus.V**2
    yield Result("bigram, counted", sees, params, score(corpus, counted(corpus)))
    table = descended(corpus, scaled(STEPS, effort))
    yield Result("bigram, gradient descent", sees, params, score(corpus, table))


def main(argv: Sequence[str] | None = None) -> None:
    """Print how near the tables are, step by step, and what each writes."""
    corpus, effort = opened("bigram", __doc__, argv)
    table = counted(corpus)
    for steps in (1, 10, 100, 1000, scaled(STEPS, effort)):
        learnt = descended(corpus, steps)
        print(f"{steps:>5} steps: the tables differ by {np.abs(learnt - table).max():.1e} at most")
    for name, p in (("counted", table), ("descended", learnt)):
        print(f"\nwritten by the table that was {name}:\n{written(corpus, p)}")
    print("", *climb(corpus, effort), sep="\n")


if __name__ == "__main__":
    run(main, threads=1)
