"""Which tokens of a row are hidden, and what then stands there. It draws nothing by itself.

Letters: B rows, T positions, V tokens in the vocabulary. Each row comes with three uniform numbers
a position (`noise`), which follow from a seed and the row's number alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tok import Tokenizer
from tok.special import BERT_TOKENS

QUOTES = "\"')\u201d\u2019"  # what may stand between a sentence and its end


@dataclass(frozen=True)
class Masking:
    """How many tokens are hidden, and how: BERT's 15 %, of which 80 % [MASK], 10 % random."""

    rate: float = 0.15
    random: float = 0.1  # of the hidden ones
    keep: float = 0.1
    whole_words: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """What masking has to know of a tokenizer: ids of BERT's special tokens, and its words."""

    cls: int
    sep: int
    pad: int
    mask: int
    special: np.ndarray  # (V,) bool, as all below
    begins: np.ndarray  # the token may go on the word of the token before it
    ends: np.ndarray  # the token after it may go on its word
    stops: np.ndarray  # a sentence may end with the token
    spaced: np.ndarray  # the token begins with white space; all do where none does

    @property
    def ordinary(self) -> np.ndarray:
        """The ids of the tokens that are not special."""
        return np.flatnonzero(~self.special)

    def starts(self, ids: np.ndarray) -> np.ndarray:
        """Whether a word starts at each position, (B,T) bool: " low", "er", "." -> 1 0 1."""
        goes_on = self.begins[ids[:, 1:]] & self.ends[ids[:, :-1]]
        return np.pad(~goes_on, ((0, 0), (1, 0)), constant_values=True)


def in_word(char: str) -> bool:
    """Whether a character is of a word: a letter, a digit, or a part of one in bytes."""
    return char.isalnum() or char == "\ufffd"


def piece(tokenizer: Tokenizer, token: int) -> str:
    """The text of a token with the space that it begins with, if it has one."""
    return "".join(tokenizer.decode_stream([token]))


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Read a tokenizer. ValueError if it lacks one of BERT's special tokens.

    A token goes on a word where a letter or digit meets another. So no word crosses a space.
    """
    specials = tokenizer.special_tokens
    if lacking := [name for name in BERT_TOKENS if name not in specials]:
        cure = "leave --tokenizer FILE out, and a new one has them"
        raise ValueError(f"the tokenizer has no {' '.join(lacking)}; {cure}")
    texts = [piece(tokenizer, i) for i in range(tokenizer.vocab_size)]
    special = np.isin(np.arange(len(texts)), list(specials.values()))
    begins = np.array([in_word(text[:1]) for text in texts]) & ~special
    ends = np.array([in_word(text[-1:]) for text in texts]) & ~special
    stops = np.array([text.rstrip(QUOTES).endswith((".", "!", "?")) for text in texts]) & ~special
    spaced = np.array([text[:1].isspace() for text in texts])
    cls, sep, pad, mask = (specials[name] for name in BERT_TOKENS)
    spaced = spaced if spaced.any() else ~special
    return Vocabulary(cls, sep, pad, mask, special, begins, ends, stops, spaced)


def noise(seed: int, rows: Iterable[int], T: int) -> np.ndarray:
    """Three uniform numbers for each position of each row, (3,B,T), by the rows' numbers."""
    drawn = [np.random.default_rng((seed, row)).random((3, T)) for row in rows]
    return np.stack(drawn, 1)


def chosen(
    u: np.ndarray, real: np.ndarray, rate: float, starts: np.ndarray | None = None
) -> np.ndarray:
    """The positions to hide, (B,T) bool: of n real ones (B,T) those with the least u (B,T).

    As in BERT they are round(rate n) of each row, at least 1. With `starts`, words are chosen in
    whole, by the number of their first token, until as many tokens are; but in a row of which
    nothing would be left, such as one of a single long word, tokens are.
    """
    n = np.maximum(1, np.round(rate * real.sum(1, keepdims=True)))
    tokens = (ranks(u, real) < n) & real
    if starts is None:
        return tokens
    # all tokens of a word have its first one's number
    first = np.maximum.accumulate(np.where(starts, np.arange(u.shape[1]), 0), 1)
    rank = ranks(np.take_along_axis(u, first, 1), real)
    words = (np.take_along_axis(rank, first, 1) < n) & real
    return np.where((words == real).all(1, keepdims=True), tokens, words)


def ranks(u: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Each position's place among the real ones of its row by u, the least is 0; (B,T) each."""
    order = np.where(real, u, 2.0).argsort(1, kind="stable")
    return order.argsort(1, kind="stable")


def masked(
    ids: np.ndarray, real: np.ndarray, u: np.ndarray, how: Masking, v: Vocabulary
) -> tuple[np.ndarray, np.ndarray]:
    """(what the model reads, its targets) of rows of ids, (B,T) each; a target is -1 where none is.

    `real` (B,T) are the positions that may be hidden, u (3,B,T) is `noise`.
    """
    hidden = chosen(u[0], real, how.rate, v.starts(ids) if how.whole_words else None)
    ordinary = v.ordinary
    other = ordinary[(u[2] * len(ordinary)).astype(np.int64)]
    shown = np.where(u[1] < how.keep, ids, np.where(u[1] < how.keep + how.random, other, v.mask))
    return np.where(hidden, shown, ids), np.where(hidden, ids, -1)
