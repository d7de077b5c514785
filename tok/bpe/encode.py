"""Plain text -> ids, with a bounded memory of words. A known word costs one look-up in C."""

from collections.abc import Callable, Mapping
from itertools import chain

from tok.bpe.merges import MergeTable, as_chars
from tok.bpe.pretokenize import Splitter

Ids = tuple[int, ...]
LONG = 64  # characters; a longer word hardly comes again


class Memory(dict[str, Ids]):
    """Word -> `find(word)`, remembered for `limit` words at most."""

    def __init__(self, find: Callable[[str], Ids], limit: int):
        super().__init__()
        self.find, self.limit = find, limit

    def __missing__(self, word: str) -> Ids:
        ids = self.find(word)
        if len(word) <= LONG:
            if len(self) >= self.limit:
                self.clear()  # the frequent ones are back at once
            self[word] = ids
        return ids


class Encoder:
    """Merges and a split at work; `id` gives the id of each token, `limit` words are remembered."""

    def __init__(self, merges: MergeTable, split: Splitter, id: Mapping[str, int], limit: int):
        self.merges, self.split, self.id = merges, split, id
        self.words = Memory(self.find_word, limit)
        self.units = Memory(self.find_unit, limit)

    def with_limit(self, limit: int) -> "Encoder":
        """The same with a memory of its own."""
        return Encoder(self.merges, self.split, self.id, limit)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        if text.isascii():
            found = map(self.words.__getitem__, self.split.words(text))
        else:
            found = map(self.units.__getitem__, self.split.units(text))
        return list(chain.from_iterable(found))

    def find_unit(self, unit: str) -> Ids:
        """Ids of a coarse unit, by way of its words."""
        return tuple(chain.from_iterable(map(self.words.__getitem__, self.split.words(unit))))

    def find_word(self, word: str) -> Ids:
        """Ids of a word, by joining its bytes. ValueError for a byte without a token."""
        try:
            return tuple(map(self.id.__getitem__, self.merges.join(as_chars(word))))
        except KeyError as e:
            byte = f"byte 0x{ord(e.args[0]):02x} of {word!r}"
            raise ValueError(f"the vocabulary has no token for {byte}; leave it out") from None
