"""Completions judged by the rules of utils/judge.py, between a ceiling and a floor.

The ceiling is the validation text under the same rules, the floor a text written from frequencies
of pairs of tokens. All texts begin as those of the validation text do.
"""

import re
from collections.abc import Sequence
from functools import cache

import numpy as np

from data.store import TokenDataset
from data.stories import compose
from model import TinyGPT
from tok import END_OF_TEXT
from utils.judge import KNOWN, Judge
from utils.suite.rows import Row, rate
from utils.writing.defaults import SAMPLING
from utils.writing.text import start_ids, write_batch

STEPS = 400  # tokens a text, at most
WORDS = 3  # of a story that are given
ALL = "all rules"
READ = 200_000  # tokens of validation text that are looked at
Text = tuple[str, bool]  # and whether it ended by itself


@cache
def judge() -> Judge:
    """What knows the words and turns of phrase of such stories; made once, in seconds."""
    return Judge(compose(KNOWN))


def whole_stories(data: TokenDataset) -> list[str]:
    """Documents of the validation text; of a text that is one document, what blank lines divide.

    Of these the first and the last may have been cut, and are left out.
    """
    text = data.tokenizer.decode(data.val[:READ].tolist())
    parts = text.split("\n\n")[1:-1] if data.end is None else text.split(END_OF_TEXT)
    if data.end is not None and len(data.val) > READ:
        parts = parts[:-1]
    return [part for part in parts if part.strip()]


def opening(story: str) -> str:
    """The first WORDS words: "One day, Tom sat down." -> "One day, Tom"."""
    found = re.match(rf"\s*(?:\S+\s+){{0,{WORDS - 1}}}\S+", story)
    return found[0] if found else ""


class Pairs:
    """A writer that knows which token followed which: after x, what followed an x in the text."""

    def __init__(self, train: np.ndarray) -> None:
        self.train = train
        self.order = np.argsort(train[:-1], kind="stable")  # positions, token by token
        self.sorted = train[:-1][self.order]

    def write(self, ids: Sequence[int], steps: int, end: int | None, seed: int) -> list[int]:
        """At most `steps` ids that go on from the last of ids, up to `end`."""
        rng, written, last = np.random.default_rng(seed), list[int](), ids[-1]
        for _ in range(steps):
            first, stop = np.searchsorted(self.sorted, (last, last + 1))
            if first == stop:  # it stands nowhere, or at the end alone
                return written
            last = int(self.train[self.order[rng.integers(first, stop)] + 1])
            if last == end:
                return written
            written.append(last)
        return written


class Stories:
    """A judge, what the validation text reaches, and how texts are to begin."""

    def __init__(self, data: TokenDataset, num: int, seed: int) -> None:
        """ValueError if the validation text itself breaks the rules more often than not."""
        self.data, self.seed = data, seed
        self.judge = judge()
        self.real = whole_stories(data)
        good = sum(not self.judge.faults(story) for story in self.real)
        if 2 * good <= len(self.real):
            kept = f"of the {len(self.real)} whole texts in its validation text {good} keep them"
            raise ValueError(f"the rules are of stories like data/tiny.txt; {kept}")
        self.openings = [opening(self.real[i % len(self.real)]) for i in range(num)]

    def judged(self, of: str, texts: Sequence[Text]) -> list[Row]:
        """How many texts keep each rule, and how many all of them."""
        broken = [self.judge.broken(story, ended) for story, ended in texts]
        rules = {ALL: [not any(each.values()) for each in broken]}
        rules |= {rule: [not each[rule] for each in broken] for rule in broken[0]}
        return [rate("rule", rule, 0, of, kept) for rule, kept in rules.items()]

    def bounds(self) -> list[Row]:
        """The ceiling and the floor."""
        return [*self.judged("validation", [(s, True) for s in self.real]), *self.bigram()]

    def bigram(self) -> list[Row]:
        """What frequencies of pairs write."""
        tokenizer, end = self.data.tokenizer, self.data.end
        writer, texts = Pairs(self.data.train), list[Text]()
        for i, start in enumerate(self.openings):
            ids = writer.write(start_ids(tokenizer, start, end), STEPS, end, self.seed + i)
            texts.append((start + tokenizer.decode(ids), len(ids) < STEPS))
        return self.judged("bigram", texts)

    def measure(self, model: TinyGPT) -> list[Row]:
        """What a model writes, drawn as sample.py draws, text i by seed + i."""
        stops = ["\n\n"] if self.data.end is None else []
        how = {"end": self.data.end, "stops": stops, "seed": self.seed, **SAMPLING}
        written = write_batch(model, self.data.tokenizer, self.openings, STEPS, **how)
        texts = [
            (s + w.text, len(w.ids) < STEPS) for s, w in zip(self.openings, written, strict=True)
        ]
        return self.judged("model", texts)
