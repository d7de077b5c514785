"""A trigram with interpolation: longer contexts say more but are rarer, so all are mixed.

p(c|ab) = w3 count(abc)/count(ab) + w2 count(bc)/count(b) + w1 count(c)/N + w0 / V

(Jelinek and Mercer 1980). Where a context was never seen, the next shorter one speaks for it. The
weights w sum to 1 and come from text that was held out of the counts: on the text that was
counted, the longest context would always be right. python -m utils.ladder.trigram
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tok.cli import run
from utils.ladder.corpus import Corpus, Result, opened, write

ORDER, LONG = 3, 6  # characters in a trigram, and in the longest table of climb()


def windows(ids: np.ndarray, n: int) -> np.ndarray:
    """All runs of n ids, (N,n): [1, 0, 2], n=2 -> [[1, 0], [0, 2]]. A view: nothing is copied."""
    return np.lib.stride_tricks.sliding_window_view(ids, n)


def keys(rows: np.ndarray, V: int) -> np.ndarray:
    """A number for each n-gram, (N,n) -> (N,): its ids as digits, [[1, 0, 2]], V=10 -> [102]."""
    return rows @ V ** np.arange(rows.shape[1] - 1, -1, -1)


class Table:
    """How often each n-gram stands in a text, and each context of n-1: what was seen, no more."""

    def __init__(self, ids: np.ndarray, n: int, V: int):
        self.n, self.V = n, V
        self.grams, self.counts = np.unique(keys(windows(ids, n), V), return_counts=True)
        self.contexts, which = np.unique(self.grams // V, return_inverse=True)
        self.totals = np.bincount(which, self.counts)

    def share(self, asked: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """count(gram) / count(context) of the grams asked; `shorter` where the context is new."""
        gram = find(self.grams, self.counts, asked)
        context = find(self.contexts, self.totals, asked // self.V)
        return np.where(context > 0, gram / np.maximum(context, 1), shorter)


def find(known: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The value of each key asked, 0 if it is not among the known (sorted)."""
    at = np.searchsorted(known, asked).clip(max=len(known) - 1)
    return np.where(known[at] == asked, values[at], 0)


def tables(ids: np.ndarray, V: int, order: int) -> list[Table]:
    """Counts of 1-grams, 2-grams, ... up to `order`. ValueError if keys would exceed 64 bits."""
    if V**order >= 2**63:
        most = int(63 / np.log2(V))
        raise ValueError(f"order={order} of {V} characters needs too large keys; try {most}")
    return [Table(ids, n, V) for n in range(1, order + 1)]


def shares(found: list[Table], rows: np.ndarray) -> np.ndarray:
    """What each order says of the last id of rows (N,order): (N,order+1), 1/V first."""
    columns = [np.full(len(rows), 1 / found[0].V)]
    for table in found:
        columns.append(table.share(keys(rows[:, -table.n :], table.V), columns[-1]))
    return np.stack(columns, 1)


def fit_weights(p: np.ndarray, rounds: int = 50) -> np.ndarray:
    """Weights of the columns of p (N,K) that make the mixture likeliest, (K,): EM.

    Each round, w_k becomes column k's mean share in the mixture. One row more is imagined for each
    column, so that no weight is 0: a character that is new in a text has a probability, too.
    """
    w = np.full(p.shape[1], 1 / p.shape[1])
    for _ in range(rounds):
        part = p * w
        w = ((part / part.sum(1, keepdims=True)).sum(0) + 1) / (len(p) + len(w))
    return w


def learn(ids: np.ndarray, V: int, order: int) -> tuple[list[Table], np.ndarray]:
    """Weights by the last tenth, from counts of the rest; then counts of all."""
    cut = int(0.9 * len(ids))
    w = fit_weights(shares(tables(ids[:cut], V, order), windows(ids[cut - order + 1 :], order)))
    return tables(ids, V, order), w


def result(corpus: Corpus, order: int) -> tuple[Result, list[Table], np.ndarray]:
    """Learn from the training text, score on the held-out text."""
    found, w = learn(corpus.train, corpus.V, order)
    p = shares(found, windows(corpus.after(order - 1), order)) @ w
    n = sum(len(table.grams) for table in found) + len(w)
    name = {3: "trigram, interpolated"}.get(order, f"{order}-gram, interpolated")
    bits = corpus.bits_per_byte(float(-np.log(p).sum()))
    return Result(name, f"the last {order - 1} characters", n, bits), found, w


def climb(corpus: Corpus, effort: float = 1.0) -> Iterator[Result]:
    """The trigram; then a longer one by the same lines."""
    for order in (ORDER, LONG):
        yield result(corpus, order)[0]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the weights for some orders, and what the trigram writes."""
    corpus, _ = opened("trigram", __doc__, argv)
    for order in range(1, LONG + 1):
        row, _, w = result(corpus, order)
        print(f"{row}; weights {' '.join(f'{x:.3f}' for x in w)}")
    _, found, w = result(corpus, ORDER)

    def probs(ids: np.ndarray) -> np.ndarray:
        rows = np.tile(np.append(ids[1 - ORDER :], 0), (corpus.V, 1))
        rows[:, -1] = np.arange(corpus.V)
        return shares(found, rows) @ w

    print("\nwritten by the trigram:\n" + corpus.decode(write(probs, corpus.val[:2], 200)))


if __name__ == "__main__":
    run(main, threads=1)
