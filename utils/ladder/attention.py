"""Attention by hand on three tokens of three dimensions: every figure printed, every one checked.

scores = q k^T / sqrt(D)    weights = softmax(scores, the future hidden)    y = weights v

A query asks, a key answers, a value is what is passed on. Position t mixes the values of positions
0 to t, each by how well its key fits t's query (Attention Is All You Need, eq. 1).
python -m utils.ladder.attention
"""

from collections.abc import Sequence

import numpy as np

from tok.cli import Parser, run
from utils.ladder.network import softmax

WORDS = ("the", "cat", "sat")
X = np.array([[1, 0, 1], [0, 2, 0], [1, 1, 0]], float)  # (T,C): a row for each word
WQ = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], float)  # (C,D)
WK = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]], float)
WV = np.array([[1, 0, 2], [0, 1, 0], [2, 0, 1]], float)


def project(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values of the words, (T,D) each."""
    return x @ WQ, x @ WK, x @ WV


def scores(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """How well each key fits each query, (T,T); sqrt(D) keeps their size when D grows."""
    return q @ k.T / np.sqrt(q.shape[-1])


def hide_future(score: np.ndarray) -> np.ndarray:
    """The scores, -inf above the diagonal: a key that comes after its query."""
    return np.where(np.tri(len(score), dtype=bool), score, -np.inf)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The output y (T,D), and the weights (T,T) by which it mixes the values."""
    weights = softmax(hide_future(scores(q, k)))
    return weights @ v, weights


def difference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> float:
    """How far `attend` is from the model's own attention, at most."""
    import torch  # here: it takes two seconds

    from model.attention import attend_naive

    theirs = attend_naive(*(torch.tensor(t)[None, None] for t in (q, k, v)))
    return float(np.abs(attend(q, k, v)[0] - theirs[0, 0].numpy()).max())


def show(title: str, table: np.ndarray) -> None:
    """Print a matrix, a word before each row."""
    print(f"\n{title}")
    for word, row in zip(WORDS, table, strict=True):
        print(f"  {word}  " + "".join(f"{x:8.3f}" for x in row))


def main(argv: Sequence[str] | None = None) -> None:
    """Print each step of attention on the three words."""
    Parser(prog="python -m utils.ladder.attention", description=__doc__).parse_args(argv)
    q, k, v = project(X)
    y, weights = attend(q, k, v)
    show("x, the words", X)
    for name, table in (("q = x Wq", q), ("k = x Wk", k), ("v = x Wv", v)):
        show(name, table)
    show("scores = q k^T / sqrt(3)", scores(q, k))
    show("no word sees what comes after it", hide_future(scores(q, k)))
    show("weights: softmax of each row, which sums to 1", weights)
    show("y = weights v", y)
    last = " + ".join(f"{w:.3f} x {u:.0f}" for w, u in zip(weights[2], v[:, 0], strict=True))
    print(f"\nthe first figure of 'sat': {last} = {y[2, 0]:.3f}")
    print(f"model.attention on the same q, k, v differs by {difference(q, k, v):.0e} at most")


if __name__ == "__main__":
    run(main, threads=1)
