"""Pairs of texts for next-sentence prediction: one goes on where the other ends, or is of another
document (Devlin et al. 2019, section 3.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.masking import Vocabulary
from data.rows import Segments


@dataclass(frozen=True)
class Chunks:
    """Documents in pieces of nearly equal length, each short enough for a row."""

    starts: np.ndarray  # (n,)
    stops: np.ndarray  # (n,)
    document: np.ndarray  # (n,): the number of the document that a piece is of
    first: np.ndarray  # (documents + 1,): each document's first piece

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return len(self.first) - 1

    def another(self, i: int, u: float) -> int:
        """A piece of another document than piece i's, by two digits of u, uniform in [0, 1)."""
        n, own = self.documents - 1, self.document[i]
        number, rest = divmod(u * n, 1)
        document = int(own + 1 + number) % self.documents
        first, stop = self.first[document], self.first[document + 1]
        return int(first + rest * (stop - first))


def chunks(tokens: np.ndarray, end: int | None, most: int) -> Chunks:
    """Divide ids at `end` into documents, and these into pieces of at most `most` tokens.

    Documents of one token are left out. 7 and 3 tokens, most=4 -> pieces of 3, 4 and 3 tokens.
    """
    ends = np.flatnonzero(tokens == end) if end is not None else np.empty(0, np.int64)
    starts, stops = np.append(0, ends + 1), np.append(ends, len(tokens))
    long = stops - starts > 1
    starts, length = starts[long], (stops - starts)[long]
    n = -(-length // most)
    first = np.append(0, np.cumsum(n))
    document = np.repeat(np.arange(len(n)), n)
    j = np.arange(first[-1]) - first[document]
    of = length[document], n[document]
    starts = starts[document]
    return Chunks(starts + of[0] * j // of[1], starts + of[0] * (j + 1) // of[1], document, first)


def cut(ids: np.ndarray, u: float, v: Vocabulary) -> int:
    """Where to cut a piece of 2 tokens or more in two, by a uniform u: after a sentence if it can.

    A sentence ends with "." (or "!", "?") before white space, which is not the last token. Else
    any position will do.
    """
    after = np.flatnonzero(v.stops[ids[:-2]] & v.spaced[ids[1:-1]]) + 1
    return int(after[int(u * len(after))]) if len(after) else 1 + int(u * (len(ids) - 1))


def pair(
    tokens: np.ndarray,
    of: Chunks,
    i: int,
    is_next: bool,
    u: Sequence[float],
    most: int,
    v: Vocabulary,
) -> Segments:
    """Two texts from piece i: its halves; or its first half, and a second half of another document.

    u are three uniform numbers: for the cut, the other piece, its cut. Both have `most` tokens at
    the most.
    """
    ids = tokens[of.starts[i] : of.stops[i]].astype(np.int64)
    at = cut(ids, u[0], v)
    if is_next:
        return ids[:at], ids[at:]
    j = of.another(i, u[1])
    other = tokens[of.starts[j] : of.stops[j]].astype(np.int64)
    return ids[:at], other[cut(other, u[2], v) :][: most - at]
