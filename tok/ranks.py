"""A word -> its tokens: join the pair whose merge was learnt first, until none is left.

As in `merges.py`, a word is a string with one character a token, so a merge is `str.replace`.
"""

from collections.abc import Iterable
from operator import add

NEVER = 1 << 60


class Table(dict[str, int]):
    """Pair -> rank; a pair that no merge joins ranks after all others."""

    def __missing__(self, pair: str) -> int:
        return NEVER


class Ranks:
    """Merges in order, ready to join. ValueError for a merge of parts that do not exist yet.

    `Ranks([(b"a", b"b")]).tokens("abc")` -> "\\u0100c": the character 256 is what merge 0 made.
    """

    def __init__(self, merges: Iterable[tuple[bytes, bytes]]):
        self.char = {bytes([i]): chr(i) for i in range(256)}
        self.rank = Table()
        self.pair: list[str] = []
        self.made: list[str] = []
        for k, (a, b) in enumerate(merges):
            if a not in self.char or b not in self.char:
                raise ValueError(f"merge {k} joins {a!r} and {b!r}, which no earlier merge makes")
            pair = self.char[a] + self.char[b]
            self.rank.setdefault(pair, k)
            self.pair.append(pair)
            self.made.append(self.char.setdefault(a + b, chr(len(self.char))))

    def tokens(self, word: str) -> str:
        """Join the pairs of a word, the lowest rank first and from the left."""
        rank = self.rank.__getitem__
        while len(word) > 1:
            k = min(map(rank, map(add, word, word[1:])))
            if k == NEVER:
                break
            word = word.replace(self.pair[k], self.made[k])
        return word
