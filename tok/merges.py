"""Learning merges: join the pair of neighbours seen most often, again and again.

Words repeat, so each different word is held once, with its count. A word is a string with one
character a token: chr(0..255) are the bytes, chr(256 + k) is what merge k made. Joining a pair is
then `str.replace`. Each merge visits the words that hold its pair, and no others.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from operator import add


def learn(
    words: Mapping[str, int], n: int, step: Callable[[int], object] = lambda done: None
) -> list[tuple[bytes, bytes]]:
    """The first n merges for words with counts; fewer if the text has no pair left.

    Equal counts go to the lexicographically greater pair of byte strings. `step` hears how many
    are done. {"aab": 2, "ab": 1}, n=2 -> [(b"a", b"b"), (b"a", b"ab")].
    """
    texts = [as_chars(w) for w in words]
    freq = list(words.values())
    where, count = index(texts, freq)
    tokens = [bytes([i]) for i in range(256)]
    queue = Queue(count, tokens)
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < n and (pair := queue.pop()):
        new = chr(len(tokens))
        merges.append((tokens[ord(pair[0])], tokens[ord(pair[1])]))
        tokens.append(b"".join(merges[-1]))
        fresh = join(pair, new, where.pop(pair), texts, freq, count, where)
        del count[pair]
        for p in fresh:
            queue.push(p)
        step(len(merges))
    return merges


def as_chars(word: str) -> str:
    """A word's UTF-8 bytes as characters 0..255: "né" -> "nÃ©"."""
    return word if word.isascii() else word.encode("utf-8").decode("latin-1")


def index(texts: list[str], freq: list[int]) -> tuple[dict[str, list[int]], dict[str, int]]:
    """For each pair of neighbours, the words that hold it (once a place) and how often in all."""
    where: dict[str, list[int]] = defaultdict(list)
    for i, w in enumerate(texts):
        for pair in map(add, w, w[1:]):
            where[pair].append(i)
    return where, {p: sum(map(freq.__getitem__, ids)) for p, ids in where.items()}


def join(
    pair: str,
    new: str,
    ids: list[int],
    texts: list[str],
    freq: list[int],
    count: dict[str, int],
    where: dict[str, list[int]],
) -> set[str]:
    """Replace the pair in the words `ids`, keep counts and places true, return the pairs born."""
    born: dict[str, list[int]] = defaultdict(list)
    for i in ids:
        old = texts[i]
        if pair not in old:
            continue  # an earlier merge took it, or this one did already: the word held it twice
        texts[i] = now = old.replace(pair, new)
        n = freq[i]
        if len(now) == len(old) - 1:  # once, the usual case: only the neighbours change
            j = now.index(new)
            if j:
                count[old[j - 1 : j + 1]] -= n
                born[now[j - 1 : j + 1]].append(i)
            if j + 2 < len(old):
                count[old[j + 1 : j + 3]] -= n
                born[now[j : j + 2]].append(i)
        else:
            for p in map(add, old, old[1:]):
                count[p] -= n
            for p in map(add, now, now[1:]):
                if new in p:
                    born[p].append(i)
                else:
                    count[p] += n
    for p, places in born.items():
        count[p] = sum(map(freq.__getitem__, places))
    where.update(born)
    return set(born)


class Queue:
    """Pairs, the greatest count first; equal counts by their bytes, the greater pair first.

    Counts may sink while a pair waits: it is put back at its true place when its turn comes. Order
    by bytes costs most, so only pairs that share the count in turn are ever ordered.
    """

    def __init__(self, count: dict[str, int], tokens: list[bytes]):
        self.count, self.tokens = count, tokens
        self.levels: list[int] = []  # a heap of -count, one for each key of `waiting`
        self.waiting: dict[int, list[str]] = {}
        self.level = 0
        self.ties: list[tuple[str, str]] = []  # a heap: pairs of this level
        for pair in count:
            self.push(pair)

    def push(self, pair: str) -> None:
        """Let a pair wait at its present count."""
        n = self.count[pair]
        if n == self.level:
            heappush(self.ties, (self.rank(pair), pair))
        elif n in self.waiting:
            self.waiting[n].append(pair)
        elif n > 0:
            self.waiting[n] = [pair]
            heappush(self.levels, -n)

    def pop(self) -> str:
        """Take the first pair; "" when none is left."""
        while self.ties or self.levels:
            if not self.ties:
                self.descend()
                continue
            pair = heappop(self.ties)[1]
            if self.count[pair] == self.level:
                return pair
            self.push(pair)
        return ""

    def descend(self) -> None:
        """Go to the next lower count and put its pairs in order."""
        self.level = -heappop(self.levels)
        waiting = self.waiting.pop(self.level)
        self.ties = [(self.rank(p), p) for p in waiting if self.count[p] == self.level]
        heapify(self.ties)
        for p in waiting:
            if self.count[p] < self.level:
                self.push(p)

    def rank(self, pair: str) -> str:
        """A string that is smaller for the greater pair: bytes turned over, the end above all."""
        return "".join(self.turned(self.tokens[ord(c)]) for c in pair)

    @staticmethod
    def turned(token: bytes) -> str:
        """b"a" sorts before b"ab"; turned, it sorts after."""
        return token.translate(DOWN).decode("latin-1") + END


DOWN = bytes(range(255, -1, -1))
END = "\u0100"
