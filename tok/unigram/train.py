"""Learning pieces: seeds, then EM for their probabilities, then the least useful away, and again.

Kudo 2018 (arXiv 1804.10959, section 3.2) with the choices of SentencePiece: two iterations of EM,
then three quarters of the pieces kept, until their number is near the one that is wanted.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from math import exp, inf, log

from tok.unigram.seeds import substrings
from tok.unigram.trie import Trie, trie

LONG = 48  # characters; longer words are learnt from in parts
TILT = 10.0  # nats a character, so that products over a word of LONG neither vanish nor overflow
SEEDS = 4  # times the pieces wanted; with 10, learning takes longer and texts get no shorter
RARE = 0.5  # expected occurrences; a piece with fewer is dropped
KEEP, NEAR, ITERATIONS = 0.75, 1.1, 2
Ends = tuple[tuple[int, ...], ...]  # for each end 1, 2, ...: pieces, by index, the longest first


def digamma(x: float) -> float:
    """The derivative of log gamma, for x > 0, to 1e-12.

    psi(x) = psi(x + 1) - 1/x until x is large, then the asymptotic series with the Bernoulli
    numbers (Abramowitz and Stegun, 6.3.5 and 6.3.18).
    """
    below = 0.0
    while x < 10:
        below += 1 / x
        x += 1
    r = 1 / (x * x)
    series = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r / 132))))
    return log(x) - 0.5 / x - series - below


def learn(
    words: Mapping[str, int], size: int, step: Callable[[int], object] = lambda done: None
) -> dict[str, float]:
    """The `size` pieces that say the words best, with their log-probabilities, the best first.

    All single characters are among them. Fewer if the words give no more. `step(done)` is called
    after each round with the part of the way that is done, of `size`.
    """
    trainer = Trainer(words, SEEDS * size)
    near, first = int(NEAR * size), len(trainer.texts)
    while True:
        for _ in range(ITERATIONS):
            trainer.maximise(trainer.expect()[1], least=size)
        trainer.drop({k for k, s in enumerate(trainer.scores) if s == -inf})
        left = len(trainer.texts)
        if left <= near:
            break
        step(int(size * (log(first / left) / log(first / near))))
        trainer.prune(max(near, int(KEEP * left)))
    trainer.prune(size)
    for _ in range(ITERATIONS):
        trainer.maximise(trainer.expect()[1], least=size)
    step(size)
    scores = [round(s, 9) for s in trainer.scores]  # with more digits, serde_json errs in the last
    return dict(sorted(zip(trainer.texts, scores, strict=True), key=lambda p: (-p[1], p[0])))


class Trainer:
    """Words with counts, pieces with scores, and where each piece stands in each word.

    Single characters always stay, so that every word has a way.
    """

    def __init__(self, words: Mapping[str, int], seeds: int):
        parts: Counter[str] = Counter()
        for word in sorted(words):  # sums of floats depend on the order
            for i in range(0, len(word), LONG):
                parts[word[i : i + LONG]] += words[word]
        self.counts = list(parts.values())
        count = seed(parts, seeds)
        total = log(sum(count.values()))
        self.texts = list(count)
        self.lengths = list(map(len, count))
        self.scores = [log(n) - total for n in count.values()]
        root = trie({t: k for k, t in enumerate(count)})
        self.words = [ends_of(root, part) for part in parts]

    def expect(self) -> tuple[float, list[float]]:
        """The log-likelihood of the words, and the expected count of each piece (E-step).

        Sums a over the ways from the left, b from the right: a piece comes a[start] x p x b[end] /
        a[-1] times. Not in logs, which cost time: each p is multiplied by
        exp(TILT x length), which cancels, and keeps the sums in a float's range.
        """
        p = [exp(s + TILT * len(t)) for s, t in zip(self.scores, self.texts, strict=True)]
        count, total, length = [0.0] * len(p), 0.0, self.lengths
        for n, ends in zip(self.counts, self.words, strict=True):
            a = [1.0]
            for end, edges in enumerate(ends, 1):
                a.append(sum([a[end - length[k]] * p[k] for k in edges]))
            total += n * (log(a[-1]) - TILT * len(ends))
            b = [0.0] * len(ends) + [n / a[-1]]
            for end in range(len(ends), 0, -1):
                out = b[end]
                for k in ends[end - 1]:
                    start, x = end - length[k], out * p[k]
                    b[start] += x
                    count[k] += a[start] * x
        return total, count

    def maximise(self, count: list[float], sparse: bool = True, least: int = 0) -> None:
        """New scores from expected counts (M-step). Rare pieces get -inf, but `least` pieces stay.

        log(count / total) makes the likelihood greatest. `sparse` takes digamma in place of log, as
        variational Bayes with a Dirichlet prior near 0 does: it makes rare pieces rarer.
        """
        f = digamma if sparse else log
        rare = [k for k, n in enumerate(count) if n < RARE and self.lengths[k] > 1]
        rare.sort(key=lambda k: (-count[k], self.texts[k]))
        gone = set(rare[max(0, least - len(count) + len(rare)) :])
        kept = [0.0 if k in gone else max(n, RARE) for k, n in enumerate(count)]
        total = f(sum(kept))
        self.scores = [f(n) - total if n else -inf for n in kept]

    def prune(self, size: int) -> None:
        """Keep `size` pieces: single characters, and those whose loss would cost the most."""
        loss = self.losses()
        longer = [k for k, length in enumerate(self.lengths) if length > 1]
        longer.sort(key=lambda k: (-loss.get(k, -1.0), -self.scores[k], self.texts[k]))
        self.drop(set(longer[max(0, size - len(self.texts) + len(longer)) :]))

    def losses(self) -> dict[int, float]:
        """How much log-likelihood goes if a piece is replaced by the best other way to write it.

        Only pieces that the best ways of the words use, and that are better than that other way.
        """
        used = [0] * len(self.texts)
        for n, ends in zip(self.counts, self.words, strict=True):
            for k in self.best(ends)[0]:
                used[k] += n
        root = trie({t: k for k, t in enumerate(self.texts)})
        total, loss = sum(used), {}
        for k, n in enumerate(used):
            if not n or len(self.texts[k]) == 1:
                continue
            ends = ends_of(root, self.texts[k])
            others, score = self.best((*ends[:-1], ends[-1][1:]))
            if score <= self.scores[k]:
                more = log(total + n * (len(others) - 1))
                alternative = sum(log(used[o] + n) - more for o in others)
                loss[k] = n * (log(n) - log(total) - alternative)
        return loss

    def best(self, ends: Ends) -> tuple[list[int], float]:
        """The pieces of the best way, from the last, and its score; -inf if there is none."""
        sums, back, length, scores = [0.0], [0], self.lengths, self.scores
        for end, edges in enumerate(ends, 1):
            top, last = -inf, 0
            for k in edges:
                score = sums[end - length[k]] + scores[k]
                if score > top:
                    top, last = score, k
            sums.append(top)
            back.append(last)
        found, end = [], len(ends)
        while end and sums[-1] > -inf:
            found.append(back[end])
            end -= length[back[end]]
        return found, sums[-1]

    def drop(self, gone: set[int]) -> None:
        """Forget these pieces."""
        new = [-1] * len(self.texts)
        left = [k for k in range(len(self.texts)) if k not in gone]
        for i, k in enumerate(left):
            new[k] = i
        self.texts = [self.texts[k] for k in left]
        self.lengths = [self.lengths[k] for k in left]
        self.scores = [self.scores[k] for k in left]
        self.words = [renumbered(ends, new) for ends in self.words]


def seed(words: Mapping[str, int], most: int) -> dict[str, int]:
    """All characters, and the substrings that cover most text, with the characters they cover."""
    count: Counter[str] = Counter()
    for word, n in words.items():
        for c in word:
            count[c] += n
    cover = {s: n * len(s) for s, n in substrings(words.items()).items()}
    longer = sorted(cover, key=lambda s: (-cover[s], s))[:most]
    return {c: count[c] for c in sorted(count)} | {s: cover[s] for s in longer}


def ends_of(root: Trie[int], text: str) -> Ends:
    """The pieces that end after each character of a text."""
    ends: list[list[int]] = [[] for _ in text]
    for start in range(len(text)):
        children = root
        for end in range(start, len(text)):
            if (node := children.get(text[end])) is None:
                break
            children, k = node
            if k is not None:
                ends[end].append(k)
    return tuple(map(tuple, ends))


def renumbered(ends: Ends, new: list[int]) -> Ends:
    """The edges with new indices; -1 is gone."""
    return tuple([tuple([new[k] for k in edges if new[k] >= 0]) for edges in ends])
