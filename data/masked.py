"""Batches for a model that guesses masked tokens: to train, drawn by number; to score, in order.

A row is a window of the text, or a pair of segments (`data.pairs`). Which rows, which pairs and
which tokens are masked follows from the seed and the row's number alone: whatever the batch size,
a resumed run gets the rows that it would have had. Letters: B rows, T positions.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from data.masking import Masking, Vocabulary, masked, noise
from data.pairs import Chunks, chunks, pair
from data.permutation import keys_of, permuted
from data.rows import Segments, laid_out
from data.sampler import row_at, shuffled_start
from data.steps import Tensors
from data.store import TokenDataset, forget_pages

SCORED = Masking(random=0.0, keep=0.0)  # whatever training masks, all are asked the same
FIXED = 0  # seed of what is asked when a model is scored


@dataclass(frozen=True)
class Windows:
    """Windows of `most` tokens side by side, each once per epoch; ValueError for a short text."""

    texts: Sequence[TokenDataset]
    weights: tuple[int, ...]
    seed: int
    most: int

    def __post_init__(self) -> None:
        for data in self.texts:
            if (n := len(data.train)) <= self.most:
                raise ValueError(
                    f"the training text has {n} tokens, too short for rows of {self.most}; give "
                    f"more text or --block_size {n + 1} or less"
                )

    @property
    def tokens(self) -> float:
        """Of text in a row."""
        return self.most

    def row(self, i: int) -> tuple[Segments, int]:
        """The text of row i of the run, and 0."""
        text, k = row_at(i, self.weights, self.seed, 0)
        tokens = self.texts[text].train
        start = shuffled_start(k, len(tokens), self.most, self.seed, 0, text)
        return (tokens[start : start + self.most].astype(np.int64),), 0


@dataclass(frozen=True)
class Pairs:
    """Pieces of documents, each once per epoch; in half of them the second text is of another.

    ValueError for a text of one document.
    """

    texts: Sequence[TokenDataset]
    weights: tuple[int, ...]
    seed: int
    most: int
    vocabulary: Vocabulary
    chunks: list[Chunks] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = [documents(data, data.train, self.most) for data in self.texts]
        object.__setattr__(self, "chunks", found)

    @property
    def tokens(self) -> float:
        """Of text in a row, on average."""
        each = [len(data.train) / len(of) for data, of in zip(self.texts, self.chunks, strict=True)]
        return float(np.average(each, weights=self.weights))

    def row(self, i: int) -> tuple[Segments, int]:
        """The texts of row i of the run; 0, or 1 if the second one is of another document."""
        text, k = row_at(i, self.weights, self.seed, 0)
        of = self.chunks[text]
        epoch, j = divmod(k, len(of))
        at = permuted(j, len(of), keys_of(self.seed, epoch, text))
        *u, fate = np.random.default_rng((self.seed, i, 1)).random(4)
        tokens, is_next = self.texts[text].train, fate < 0.5
        return pair(tokens, of, at, is_next, u, self.most, self.vocabulary), 0 if is_next else 1


def documents(data: TokenDataset, tokens: np.ndarray, most: int) -> Chunks:
    """The pieces of a split's documents. ValueError if there are not two, for pairs of them."""
    of = chunks(tokens, data.end, most)
    if of.documents < 2:
        split = "training" if tokens is data.train else "validation"
        raise ValueError(
            f"next_sentence takes sentences of two documents, but the {split} text of "
            f"{data.meta['name'] or data.path} has {of.documents}; set doc_sep to what divides "
            "it, or leave next_sentence out"
        )
    return of


@dataclass(frozen=True)
class MaskedBatches:
    """batch(number) -> x, y of windows; of pairs also token types, padding (B,T), labels (B,).

    The latter are 1 where the second text is of another document.
    """

    maker: Windows | Pairs
    vocabulary: Vocabulary
    block_size: int
    batch_size: int
    how: Masking

    def batch(self, number: int) -> Tensors:
        """Micro-batch `number` of the run, counted over all ranks."""
        numbers = range(number * self.batch_size, (number + 1) * self.batch_size)
        rows, which = zip(*map(self.maker.row, numbers), strict=True)
        for data in self.maker.texts:
            forget_pages(data.train)
        T, seed = self.block_size, self.maker.seed
        made = tensors(rows, numbers, T, self.vocabulary, self.how, seed)
        return (*made, torch.tensor(which)) if isinstance(self.maker, Pairs) else made[:2]


def tensors(
    rows: Sequence[Segments], numbers: Sequence[int], T: int, v: Vocabulary, how: Masking, seed: int
) -> Tensors:
    """(what the model reads, its targets, token types, padding) of some rows, (B,T) each."""
    made = laid_out(rows, T, v)
    x, y = masked(made.ids, made.text, noise(seed, numbers, T), how, v)
    return tuple(map(torch.from_numpy, (x, y, made.types, made.padding)))


def windows_in_order(tokens: np.ndarray, most: int) -> Iterator[Segments]:
    """A whole split in pieces of `most` tokens, the last one shorter."""
    for start in range(0, len(tokens), most):
        yield (tokens[start : start + most].astype(np.int64),)


def pairs_in_order(
    tokens: np.ndarray, of: Chunks, most: int, v: Vocabulary, is_next: bool
) -> Iterator[Segments]:
    """The pieces of a split's documents as pairs, of which all go on or none does; no chance."""
    for i in range(len(of)):
        u = np.random.default_rng((FIXED, i, 1)).random(3).tolist()
        yield pair(tokens, of, i, is_next, u, most, v)


def scored(rows: Iterable[Segments], T: int, batch_size: int, v: Vocabulary) -> Iterator[Tensors]:
    """Rows in order as x, y, token types, padding (B,T), with masks that are always the same."""
    numbered = enumerate(rows)
    while part := list(islice(numbered, batch_size)):
        numbers, segments = zip(*part, strict=True)
        yield tensors(segments, numbers, T, v, SCORED, FIXED)
