"""Learning a WordPiece vocabulary: join the pair of neighbours with the highest score.

score(a, b) = count(ab) / (count(a) count(b))    Schuster and Nakajima 2012; Devlin et al. 2018

By the size of the text it is p(ab) / (p(a) p(b)): how much likelier the text becomes, for each
occurrence of the pair, once a and b are one token instead of two that know nothing of each other.
BPE asks how often a pair occurs; this asks whether its parts occur without each other.

Alone, the score wants what is rarest: a pair that occurs once, of parts that occur once, has the
score 1, and no pair has more. So only pairs that occur often enough are asked. How often is enough
depends on the text and the vocabulary: the guard begins at the count of the most frequent pair, and
is halved each time that no pair passes it.

A word is a string with one character a symbol, as `tok/bpe/train.py` holds it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from heapq import heapify, heappop, heappush

import tok.common as common
from tok.bpe.train import Pairs
from tok.pieces import Batch
from tok.special import special_parts
from tok.wordpiece.basic import Splitter
from tok.wordpiece.encode import PREFIX

Entry = tuple[float, int, str, str, str]  # -score, -count, the two tokens, the pair


def count_words(
    texts: Iterable[str | Iterable[str]],
    split: Splitter,
    specials: Collection[str] = (),
    workers: int = 1,
) -> Counter[str]:
    """How often each word occurs. Special tokens cut a text and are not counted."""
    task = partial(count_batch, split, specials)
    return common.count_words(task, texts, specials, split.cut, workers)


def count_batch(split: Splitter, specials: Collection[str], batch: Batch) -> Counter[str]:
    """Count the words of some pieces; each different unit between white space is split once."""
    units: Counter[str] = Counter()
    for piece in filter(None, batch):
        for part, special in special_parts(piece, specials):
            if not special:
                units.update(split.units(part))
    words: Counter[str] = Counter()
    for unit, n in units.items():
        for word in split.words(unit):
            words[word] += n
    return words


def alphabet(words: Iterable[str]) -> list[str]:
    """The characters in order, then "##" and each that goes on with some word.

    A character that can stand inside a word can also begin one: ["ab"] -> ["a", "b", "##b"].
    """
    first = sorted(set[str]().union(*words))
    inside = set[str]().union(*(word[1:] for word in words))
    return [*first, *(PREFIX + c for c in first if c in inside)]


def joined(a: str, b: str) -> str:
    """Two tokens as one: "un", "##do" -> "undo"."""
    return a + b.removeprefix(PREFIX)


def learn(
    words: Mapping[str, int],
    n: int,
    min_frequency: int | None = None,
    step: Callable[[int], object] = lambda done: None,
) -> list[str]:
    """The first n tokens of two or more characters; fewer if no pair is left.

    `min_frequency` is a guard that stays; None is the one that is halved. Equal scores go to the
    pair that occurs more often, then to the first in the alphabet, by its left token, then its
    right. {"the": 5, "thy": 1, "quo": 2}, n=1 -> ["th"], for (t, ##h) occurs 6 times; with
    min_frequency=1 it is ["##uo"]: 2 / (2 * 2) > 6 / (6 * 6).
    """
    tokens = alphabet(words)
    char = {token: chr(i) for i, token in enumerate(tokens)}
    spelt = {
        "".join(char[PREFIX * (i > 0) + c] for i, c in enumerate(word)): times
        for word, times in words.items()
    }
    scores, learnt = Scores(spelt, tokens, min_frequency), list[str]()
    while len(learnt) < n and (pair := scores.pop()):
        learnt.append(scores.join(pair))
        step(len(learnt))
    return learnt


class Scores:
    """Pairs in the order of their scores. `count` has symbols and pairs: one or two characters.

    A pair waits once for each score that it has had, and only the present one counts: when a symbol
    becomes rarer, the scores of all pairs that hold it rise.
    """

    def __init__(self, words: Mapping[str, int], tokens: list[str], min_frequency: int | None):
        self.pairs, self.tokens = Pairs(words), tokens
        self.halved = min_frequency is None
        self.least = min_frequency or max(self.pairs.count.values(), default=0)
        self.single: Counter[str] = Counter()
        for word, times in words.items():
            for char in word:
                self.single[char] += times
        self.near: dict[str, set[str]] = defaultdict(set)  # symbol -> pairs that hold it
        for pair in self.pairs.count:
            self.place(pair)
        self.heap: list[Entry] = []
        self.fill()

    def fill(self) -> None:
        """Let all pairs wait that pass the guard."""
        self.heap = [self.entry(p) for p, n in self.pairs.count.items() if n >= self.least]
        heapify(self.heap)

    def place(self, pair: str) -> None:
        """Note a pair with its symbols."""
        for char in pair:
            self.near[char].add(pair)

    def entry(self, pair: str) -> Entry:
        """A pair as it waits in the heap: what sorts first is joined first."""
        a, b = pair[0], pair[1]
        n = self.pairs.count[pair]
        score = n / (self.single[a] * self.single[b])
        return -score, -n, self.tokens[ord(a)], self.tokens[ord(b)], pair

    def pop(self) -> str:
        """Take the pair with the highest score; "" when none is left."""
        while self.heap or (self.halved and self.least > 1):
            if not self.heap:
                self.least //= 2
                self.fill()
                continue
            entry = heappop(self.heap)
            if self.pairs.count.get(entry[-1], 0) >= self.least and entry == self.entry(entry[-1]):
                return entry[-1]
        return ""

    def join(self, pair: str) -> str:
        """Make one symbol of a pair in every word; return its token."""
        a, b = pair[0], pair[1]
        found = set(self.pairs.where[pair])
        new = chr(len(self.tokens))
        self.tokens.append(joined(self.tokens[ord(a)], self.tokens[ord(b)]))
        added = self.pairs.join(pair, new)
        times, words = self.pairs.times, self.pairs.words
        self.single[new] = sum(times[i] * words[i].count(new) for i in found)
        self.single.subtract({a: self.single[new]})
        self.single.subtract({b: self.single[new]})  # twice where a is b
        for other in added:
            self.place(other)
        for char in {a, b, new}:
            self.rank(char)
        return self.tokens[-1]

    def rank(self, char: str) -> None:
        """Let the pairs that hold a symbol wait at their present scores; forget those that went."""
        count, near = self.pairs.count, self.near[char]
        self.near[char] = {pair for pair in near if count.get(pair)}
        for pair in self.near[char]:
            if count[pair] >= self.least:
                heappush(self.heap, self.entry(pair))
