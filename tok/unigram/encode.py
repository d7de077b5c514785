"""Plain text -> ids by the best way through each word, with a bounded memory of words."""

from collections.abc import Callable, Iterable
from itertools import chain

from tok.bpe.encode import Memory
from tok.bpe.pretokenize import Splitter
from tok.unigram.lattice import Ids, Pieces


class Encoder:
    """Pieces and a split at work on normalized text; `limit` words are remembered.

    unknown: the id of characters that no piece has and no bytes spell; None where there is none.
    """

    def __init__(
        self,
        pieces: Pieces,
        split: Splitter,
        normalize: Callable[[str], str],
        unknown: int | None,
        limit: int,
    ):
        self.pieces, self.split, self.normalize, self.unknown = pieces, split, normalize, unknown
        self.words = Memory(self.find_word, limit)

    def with_limit(self, limit: int) -> "Encoder":
        """The same with a memory of its own."""
        return Encoder(self.pieces, self.split, self.normalize, self.unknown, limit)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        words = self.split.words(self.normalize(text))
        return fused(chain.from_iterable(map(self.words.__getitem__, words)), self.unknown)

    def find_word(self, word: str) -> Ids:
        """Ids of a word."""
        return self.pieces.best(word)[0]


def fused(ids: Iterable[int], unknown: int | None) -> list[int]:
    """One id for a run of unknown characters, as others have it: [3, 0, 0, 5] -> [3, 0, 5]."""
    ids = list(ids)
    if unknown is None or unknown not in ids:
        return ids
    pairs = zip(ids, [None, *ids], strict=False)
    return [i for i, before in pairs if i != unknown or before != unknown]
