"""Rows as BERT reads them: [CLS] text [SEP], or with a second text and another [SEP].

Letters: B rows, T positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.masking import Vocabulary

Segments = tuple[np.ndarray, ...]  # the ids of one text, or of two


@dataclass(frozen=True)
class Rows:
    """B rows of T positions, filled up with [PAD]."""

    ids: np.ndarray  # (B,T) int64
    types: np.ndarray  # (B,T) int64: 0 in the first text and its [SEP], 1 in the second
    padding: np.ndarray  # (B,T) bool, True where a token is
    text: np.ndarray  # (B,T) bool, True where a token of a text is that is not special


def room(T: int, texts: int = 1) -> int:
    """How many tokens of text a row of T positions has room for, beside the special ones.

    ValueError if that is less than two, one to be seen and one to be guessed, for each text.
    """
    if T - 1 - texts < 2 * texts:
        least = 1 + 3 * texts
        raise ValueError(f"block_size={T} has no room for [CLS] and {texts} x [SEP]; {least} has")
    return T - 1 - texts


def laid_out(rows: Sequence[Segments], T: int, v: Vocabulary) -> Rows:
    """Put [CLS], the texts, each with its [SEP], and [PAD] into rows of T positions."""
    ids = np.full((len(rows), T), v.pad, np.int64)
    types, padding = np.zeros_like(ids), np.zeros(ids.shape, bool)
    text = padding.copy()
    for r, segments in enumerate(rows):
        ids[r, 0], at = v.cls, 1
        for kind, segment in enumerate(segments):
            stop = at + len(segment)
            ids[r, at:stop], ids[r, stop] = segment, v.sep
            types[r, at : stop + 1], text[r, at:stop] = kind, True
            at = stop + 1
        padding[r, :at] = True
    return Rows(ids, types, padding, text & ~v.special[ids])
