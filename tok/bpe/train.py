"""Learning merges: count words, then join the most frequent pair of neighbours, again and again.

Words repeat, so each different word is held once, with its count. A word is a string with one
character a token: chr(0..255) are the bytes, chr(256 + k) is what merge k made. Joining a pair is
then `str.replace`. Each merge visits the words that hold its pair, and no others.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from heapq import heapify, heappop, heappush
from operator import add

import tok.common as common
from tok.bpe.merges import as_chars
from tok.bpe.pretokenize import Splitter
from tok.pieces import Batch
from tok.special import special_parts

DOWN = bytes(range(255, -1, -1))
END = "\u0100"  # greater than any byte


def count_words(
    texts: Iterable[str | Iterable[str]],
    split: Splitter,
    specials: Collection[str] = (),
    workers: int = 1,
) -> Counter[str]:
    """How often each word occurs. Special tokens cut a text and are not counted.

    No word crosses from one text to the next.
    """
    task = partial(count_batch, split, specials)
    return common.count_words(task, texts, specials, split.cut, workers)


def count_batch(split: Splitter, specials: Collection[str], batch: Batch) -> Counter[str]:
    """Count the words of some pieces. ASCII is split at once, other text in two steps."""
    whole: list[str] = []
    units: list[str] = []
    for piece in filter(None, batch):
        for part, special in special_parts(piece, specials):
            if special:
                continue
            if part.isascii():
                whole += split.words(part)
            else:
                units += split.units(part)
    words = Counter(whole)
    for unit, n in Counter(units).items():
        for word in split.words(unit):
            words[word] += n
    return words


def learn(  # exercise: bpe-learn
    words: Mapping[str, int], n: int, step: Callable[[int], object] = lambda done: None
) -> list[tuple[bytes, bytes]]:
    """The first n merges for words with counts; fewer if the text has no pair left.

    Equal counts go to the lexicographically greater pair of byte strings. `step` is called with
    how many are done. {"aab": 2, "ab": 1}, n=2 -> [(b"a", b"b"), (b"a", b"ab")].
    """
    pairs = Pairs({as_chars(word): times for word, times in words.items()})
    tokens = [bytes([i]) for i in range(256)]
    queue = Queue(pairs.count, tokens)
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < n and (pair := queue.pop()):
        merges.append((tokens[ord(pair[0])], tokens[ord(pair[1])]))
        tokens.append(b"".join(merges[-1]))
        for added in pairs.join(pair, chr(len(tokens) - 1)):
            queue.push(added)
        step(len(merges))
    return merges


class Pairs:
    """Words, a character a token; for each pair of neighbours its count and the words that hold it.

    `where` names a word once for each occurrence, and keeps words that have lost the pair since:
    asking the word is cheaper than keeping the list true. `count` is always true.
    """

    def __init__(self, words: Mapping[str, int]):  # exercise: pair-counts
        self.words = list(words)
        self.times = list(words.values())
        self.where: dict[str, list[int]] = defaultdict(list)
        for i, word in enumerate(self.words):
            for pair in map(add, word, word[1:]):
                self.where[pair].append(i)
        self.count = {pair: self.total(found) for pair, found in self.where.items()}

    def total(self, indices: list[int]) -> int:
        """How often these words occur in all."""
        return sum(map(self.times.__getitem__, indices))

    def join(self, pair: str, new: str) -> dict[str, list[int]]:  # exercise: bpe-merge
        """Replace a pair by a new token in every word; return new pair -> indices of words."""
        count, words = self.count, self.words
        first, last = pair[0], pair[1]
        added: dict[str, list[int]] = defaultdict(list)
        for i in set(self.where.pop(pair)):
            pieces = words[i].split(pair)
            if len(pieces) == 1:
                continue  # an earlier merge took it
            words[i] = new.join(pieces)
            n = self.times[i]
            left = left_now = pieces[0][-1:]
            for piece in pieces[1:]:
                if left:
                    count[left + first] -= n
                    added[left_now + new].append(i)
                left, left_now = piece[-1:] or last, piece[-1:] or new
                if piece:
                    count[last + piece[0]] -= n
                    added[new + piece[0]].append(i)
        del count[pair]
        count.update((p, self.total(found)) for p, found in added.items())
        self.where.update(added)
        return added


class Queue:
    """Pairs, the greatest count first; equal counts by their bytes, the greater pair first.

    Counts may sink while a pair waits: when its turn comes, it goes back to wait at its true count.
    To order by bytes costs most, so only the pairs that share the count in turn are ever ordered.
    """

    def __init__(self, count: Mapping[str, int], tokens: list[bytes]):
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
            heappush(self.ties, (self.order(pair), pair))
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
        for pair in self.waiting.pop(self.level):
            if self.count[pair] == self.level:
                self.ties.append((self.order(pair), pair))
            else:
                self.push(pair)
        heapify(self.ties)

    def order(self, pair: str) -> str:
        """A string that sorts first for the greater pair: bytes inverted, ends above all."""
        a, b = (self.tokens[ord(c)].translate(DOWN).decode("latin-1") for c in pair)
        return a + END + b + END
