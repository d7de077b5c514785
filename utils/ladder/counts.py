"""Counting characters and words: what the text is made of, and a code that knows nothing else.

p(c) = (count(c) + 1) / (N + V)                 characters: Laplace's rule
p(w) = count(w) / (N + W)   or, if w is new, W / (N + W) p(its spelling)      words: Witten and Bell

W is how many different words there are. White space and signs are words of one character, so the
words are the text, nothing left out. python -m utils.ladder.counts
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from tok.cli import run
from utils.ladder.corpus import OTHER, SPELL, Corpus, Result, opened


def words_of(text: str) -> list[str]:
    """All of a text, cut: "Oh, no" -> "Oh", ",", " ", "no"."""
    return re.findall(r"\w+|\W", text)


def unigram(ids: np.ndarray, V: int) -> np.ndarray:
    """How often each of V ids is the next one, (V,); each was seen once more than it was."""
    return (np.bincount(ids, minlength=V) + 1) / (len(ids) + V)


def spelling(corpus: Corpus, p: np.ndarray, word: str) -> float:
    """Nats to spell a word by its characters, ended by a space."""
    ids = corpus.encode(word + " ")
    return float(-np.log(p[ids]).sum() + SPELL * np.count_nonzero(ids == OTHER))


def word_nats(corpus: Corpus, counts: Counter[str]) -> float:
    """What the words of the held-out text cost, by how often each stands in the training text."""
    p, total = unigram(corpus.train, corpus.V), counts.total() + len(counts)
    nats = 0.0
    for word, times in Counter(words_of(corpus.val_text)).items():
        cost = -np.log((counts[word] or len(counts)) / total)
        if word not in counts:
            cost += spelling(corpus, p, word)
        nats += times * float(cost)
    return nats


def climb(corpus: Corpus, effort: float = 1.0) -> Iterator[Result]:
    """Nothing known; then characters counted; then words."""
    V, sees = corpus.V, "nothing"
    yield Result("uniform", sees, 0, corpus.bits_per_byte(len(corpus.val) * np.log(V)))
    p = unigram(corpus.train, V)
    nats = float(-np.log(p[corpus.val]).sum())
    yield Result("characters, counted", sees, V, corpus.bits_per_byte(nats))
    counts = Counter(words_of(corpus.train_text))
    bits = corpus.bits_per_byte(word_nats(corpus, counts), spelt=True)
    yield Result("words, counted", "where a word ends", len(counts), bits)


def main(argv: Sequence[str] | None = None) -> None:
    """Print what is frequent, and what frequencies alone reach."""
    corpus, effort = opened("counts", __doc__, argv)
    for what, things in (("characters", corpus.train_text), ("words", corpus.train_text.split())):
        counts = Counter(things)
        print(f"{counts.total():,} {what}, {len(counts):,} different; the most frequent:")
        print("  " + "  ".join(f"{t!r} {n / counts.total():.1%}" for t, n in counts.most_common(8)))
    print(*climb(corpus, effort), sep="\n")


if __name__ == "__main__":
    run(main, threads=1)
