"""Plain text -> ids by the best way through each word, with a bounded memory of words."""

from itertools import chain

from tok.bpe.encode import Memory
from tok.bpe.pretokenize import Splitter
from tok.unigram.lattice import Ids, Pieces


class Encoder:
    """Pieces and a split at work; `limit` words are remembered."""

    def __init__(self, pieces: Pieces, split: Splitter, limit: int):
        self.pieces, self.split = pieces, split
        self.words = Memory(self.find_word, limit)

    def with_limit(self, limit: int) -> "Encoder":
        """The same with a memory of its own."""
        return Encoder(self.pieces, self.split, limit)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return list(chain.from_iterable(map(self.words.__getitem__, self.split.words(text))))

    def find_word(self, word: str) -> Ids:
        """Ids of a word."""
        return self.pieces.best(word)[0]
