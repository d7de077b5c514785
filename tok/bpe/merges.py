"""A word -> its tokens: join the pair whose merge was learnt first, until none is left.

A word is a string with one character a token: chr(0..255) are the bytes.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from heapq import heapify, heappop, heappush
from operator import add

NEVER = 1 << 60
LONG = 20  # bytes; beyond, looking at every pair again costs more
FIRST = chr(256)  # the token that merge 0 makes


def as_chars(word: str) -> str:
    """A word's UTF-8 bytes as characters 0..255: "né" -> "nÃ©"."""
    return word if word.isascii() else word.encode("utf-8").decode("latin-1")


class PairRanks(dict[str, int]):
    """Pair -> rank; a pair that no merge joins ranks after all others."""

    def __missing__(self, pair: str) -> int:
        return NEVER


class MergeTable:
    r"""Merges in order, ready to join. ValueError for a merge of parts that do not exist yet.

    Two merges may spell the same bytes: they make the same token.
    `MergeTable([(b"a", b"b")]).join("abc")` -> "\u0100c": the character 256 is what merge 0 made.
    """

    def __init__(self, merges: Iterable[tuple[bytes, bytes]]):
        self.char = {chr(i): chr(i) for i in range(256)}  # bytes, one character each -> token
        self.rank = PairRanks()
        self.pair: list[str] = []
        self.made: list[str] = []
        for k, merge in enumerate(merges):
            a, b = (part.decode("latin-1") for part in merge)
            if a not in self.char or b not in self.char:
                raise ValueError(
                    f"merge {k} joins {merge}, which no earlier merge makes; sort them"
                )
            pair = self.char[a] + self.char[b]
            if self.rank.setdefault(pair, k) != k:
                raise ValueError(f"merge {k} joins {merge} once more; remove it")
            self.pair.append(pair)
            self.made.append(self.char.setdefault(a + b, chr(len(self.char))))

    def join(self, word: str) -> str:  # exercise: bpe-encode
        """Join the pairs of a word, the lowest rank first and from the left."""
        if self.sound and word in self.char:
            return self.char[word]
        if len(word) > LONG or not self.sound:
            return self.join_long(word)
        rank, pair, made = self.rank.__getitem__, self.pair, self.made
        while len(word) > 1:
            k = min(map(rank, map(add, word, word[1:])))
            if k == NEVER:
                break
            word = word.replace(pair[k], made[k])  # all of them: what it makes ranks later
        return word

    def join_long(self, word: str) -> str:
        """The same in O(n log n): a linked list of tokens, and for each rank its positions."""
        rank, pair, made = self.rank.__getitem__, self.pair, self.made
        token = [*word, ""]  # "" is the end, and every position that a token to its left took over
        before = list(range(-1, len(word)))
        after = list(range(1, len(word) + 2))
        positions: dict[int, list[int]] = defaultdict(list)
        for i, k in enumerate(map(rank, map(add, word, word[1:]))):
            positions[k].append(i)
        todo = [k for k in positions if k != NEVER]
        heapify(todo)
        while todo:
            k = heappop(todo)
            here = sorted(positions.pop(k))
            for n, i in enumerate(here):
                if not token[i] or token[i] + token[after[i]] != pair[k]:
                    continue  # another merge has taken one of the two since
                token[i], token[after[i]] = made[k], ""
                after[i] = j = after[after[i]]
                before[j] = i
                for left, new in (
                    (i, token[i] + token[j]),
                    (before[i], token[before[i]] + token[i]),
                ):
                    if (r := rank(new)) != NEVER:
                        if r not in positions:
                            heappush(todo, r)
                        positions[r].append(left)
                if todo and todo[0] < k:  # only where two merges spell the same: first things first
                    positions[k] = here[n + 1 :]
                    heappush(todo, k)
                    break
        return "".join(token)

    def fits(self, a: str, b: str, limit: int = NEVER) -> bool:
        """Whether no merge of rank < limit crosses from token a to b, when their bytes are joined.

        Takes the two apart at their common edge, the later made first, and looks at each pair of
        neighbours which that edge ever had. With equal ranks the left pair joins first.
        """
        while self.rank[a + b] >= limit:
            if a > b:
                if a < FIRST:
                    return True
                limit = ord(a) - 256
                a = self.pair[limit][1]
            else:
                if b < FIRST:
                    return True
                limit = ord(b) - 256 + 1
                b = self.pair[limit - 1][0]
        return False

    @cached_property
    def sound(self) -> bool:
        """Whether each token's own bytes join to that token, by the merge that made it.

        So it is after training: an edge inside a word only ever goes, so the inside of a token has
        been joined as if it stood alone. A list of merges from elsewhere may be otherwise.
        """
        unique = len(self.char) == 256 + len(self.pair)
        return unique and all(self.fits(p[0], p[1], k) for k, p in enumerate(self.pair))
