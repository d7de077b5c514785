"""Words -> ids: the longest token that begins the word, then the longest that goes on with it."""

from collections.abc import Iterator, Mapping
from itertools import chain

from tok.bpe.encode import Ids, Memory
from tok.wordpiece.basic import UNIT, Splitter

PREFIX = "##"  # of a token that goes on with a word


class Encoder:
    """A vocabulary and BERT's split at work; `limit` words and units are remembered.

    A word of more than `max_word` characters, or one that can't be spelt to its end, is `unknown`.
    """

    def __init__(
        self, ids: Mapping[str, int], split: Splitter, unknown: int, max_word: int, limit: int
    ):
        self.ids, self.split, self.unknown, self.max_word = ids, split, unknown, max_word
        self.first = {t: i for t, i in ids.items() if not t.startswith(PREFIX)}
        self.rest = {t.removeprefix(PREFIX): i for t, i in ids.items() if t.startswith(PREFIX)}
        self.longest = max(map(len, chain(self.first, self.rest)), default=0)
        self.words = Memory(self.find_word, limit)
        self.units = Memory(self.find_unit, limit)
        self.places = Memory(self.find_places, limit)

    def with_limit(self, limit: int) -> "Encoder":
        """The same with a memory of its own."""
        return Encoder(self.ids, self.split, self.unknown, self.max_word, limit)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return list(chain.from_iterable(map(self.units.__getitem__, self.split.units(text))))

    def find_unit(self, unit: str) -> Ids:
        """Ids of what stands between white space, by way of its words."""
        return tuple(chain.from_iterable(map(self.words.__getitem__, self.split.words(unit))))

    def find_word(self, word: str) -> Ids:
        """Ids of a word."""
        return tuple(i for i, _, _ in self.pieces(word))

    def pieces(self, word: str) -> list[tuple[int, int, int]]:
        """Id, start and end of each token in a word: "playing" -> [(play, 0, 4), (##ing, 4, 7)]."""
        whole = [(self.unknown, 0, len(word))]
        if len(word) > self.max_word:
            return whole
        found: list[tuple[int, int, int]] = []
        table, start = self.first, 0
        while start < len(word):
            for end in range(min(len(word), start + self.longest), start, -1):
                if (i := table.get(word[start:end])) is not None:
                    break
            else:
                return whole
            found.append((i, start, end))
            table, start = self.rest, end
        return found

    def find_places(self, unit: str) -> Ids:
        """Id, start and end in the unit of its first token, then of the next, all in a row."""
        found: list[int] = []
        for word, where in self.split.placed(unit):
            for i, a, b in self.pieces(word):
                found += (i, where[a], where[b - 1] + 1)
        return tuple(found)

    def placed(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Id, start and end in the text of each token."""
        for m in UNIT.finditer(text):
            flat, at = self.places[m[0]], m.start()
            for k in range(0, len(flat), 3):
                yield flat[k], at + flat[k + 1], at + flat[k + 2]
