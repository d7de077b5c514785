"""How much of what a model wrote stands in its training text: words, whole sentences, long runs.

A word is what stands between white space; line ends do not count. Only the training split is read,
back from the ids that the run learnt, and of a long text only its first LIMIT tokens.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.mixture import Mixture, open_mixture
from data.store import TokenDataset
from tok import END_OF_TEXT
from utils.config import recorded_settings
from utils.training.checkpoint import same_data

WINDOW = 12  # words: fewer are soon an idiom
PLACES = 50_000  # of one word that are looked at: "0 0 0" a million times is no story
SHOWN = 24  # words of the longest run that people see
LIMIT = 1 << 21  # tokens of training text that are looked at, some 7 MB
SENTENCE_END = re.compile(r"[.!?]['\")\]]*$")  # of the last word of a sentence


class Words:
    """The words of a training text, with an index of where each one stands."""

    def __init__(self, words: Iterable[str], *, limited: bool = False):
        self.limited = limited  # whether there is more text than these words
        self.ids: dict[str, int] = {}
        ids = [self.ids.setdefault(word, len(self.ids)) for word in words]
        self.text = np.array([*ids, -1])  # no run goes past the end
        self.order = self.text[:-1].argsort(kind="stable")  # positions, word by word
        self.first = np.searchsorted(self.text[self.order], np.arange(len(self.ids) + 2))

    def run_lengths(self, words: Sequence[str]) -> list[int]:
        """For each word, how long a run of words that begins with it stands in the training text.

        "a b c", where "b c a b d" is the training text -> [2, 2, 1].
        """
        unknown = len(self.ids)  # stands nowhere
        ids = [self.ids.get(word, unknown) for word in words] + [unknown]
        lengths = []
        for i, word in enumerate(ids[:-1]):
            at, n = self.order[self.first[word] : self.first[word + 1]][:PLACES], 0
            while len(at):
                n += 1
                at = at[self.text[at + n] == ids[i + n]]
            lengths.append(n)
        return lengths


def sentences(words: Sequence[str]) -> list[tuple[int, int]]:
    """(first, after the last) word of each sentence that ends: "Go! He did" -> [(0, 1)]."""
    ends = [i + 1 for i, word in enumerate(words) if SENTENCE_END.search(word)]
    return list(zip([0, *ends], ends, strict=False))


@dataclass(frozen=True)
class Novelty:
    """What of some texts stands in the training text; its line is for people."""

    longest: str  # run of words
    limited: bool  # whether there is more training text than was looked at
    sentences: int
    known_sentences: int  # word for word
    windows: int  # runs of WINDOW words
    known_windows: int

    def __str__(self) -> str:
        """Two lines: the figures, and how the longest run begins."""
        words = self.longest.split()
        run = " ".join(words[:SHOWN]) + (" ..." if len(words) > SHOWN else "")
        part = f" (its first {LIMIT:,} tokens)" if self.limited else ""
        share = self.known_windows / max(1, self.windows)
        return (
            f"{self.known_sentences} of {self.sentences} sentences stand in the training text{part}"
            f" word for word, and {share:.0%} of all runs of {WINDOW} words\n"
            f"the longest run has {len(words)} words" + (f": {run}" if words else "")
        )


def novelty(texts: Iterable[str], training: Words) -> Novelty:
    """Look for what texts have in common with a training text.

    A last sentence that does not end is not counted as one.
    """
    longest, counts = list[str](), np.zeros(4, int)
    for text in texts:
        words = text.split()
        lengths, spans = training.run_lengths(words), sentences(words)
        known = sum(lengths[i] >= end - i for i, end in spans)
        windows = np.array(lengths[: max(0, len(words) - WINDOW + 1)]) >= WINDOW
        counts += len(spans), known, len(windows), windows.sum()
        n = max(lengths, default=0)
        if n > len(longest):
            longest = words[lengths.index(n) :][:n]
    return Novelty(" ".join(longest), training.limited, *counts.tolist())


def training_words(datasets: Iterable[TokenDataset]) -> Words:
    """The words of the training splits, with <|endoftext|> between two documents or texts."""
    words, left, limited = list[str](), LIMIT, False
    for data in datasets:
        text = data.tokenizer.decode(data.train[:left].tolist())
        words += [*text.replace(END_OF_TEXT, f" {END_OF_TEXT} ").split(), END_OF_TEXT]
        limited = limited or len(data.train) > left
        left = max(0, left - len(data.train))
    return Words(words, limited=limited)


def training_text(run: Path, checkpoint: dict[str, Any]) -> Mixture:
    """Open what a run learnt from. ValueError if the text is gone, or not the same any more."""
    try:
        mixture = open_mixture(**recorded_settings(checkpoint["settings"], run).text)
    except OSError as e:
        raise ValueError(f"the training text cannot be read ({e}); leave out --novelty") from None
    same_data(checkpoint["data"], mixture.combined().meta)
    return mixture
