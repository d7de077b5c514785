"""The text that every rung reads: characters as ids, the last tenth held out, bits per byte.

The 255 most frequent characters of the training text have ids 1, 2, ...; any other is id 0, and a
rung pays for spelling it out as well, so that every score is that of a code without loss. Letters:
V ids, N characters.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.text import read_text, split_text
from tok.cli import Parser

OTHER = 0  # the id of any character outside the alphabet
MOST = 255  # characters in the alphabet: tables of V x V stay small
SPELL = math.log(0x110000)  # nats to say which of all characters of Unicode it is
TINY = Path(__file__).parents[2] / "data" / "tiny.txt"


@dataclass(frozen=True)
class Corpus:
    """A text in two parts: `train` to learn from, `val` (held out) to be scored on."""

    name: str
    train_text: str
    val_text: str

    @cached_property
    def alphabet(self) -> str:
        """Characters of ids 1, 2, ...: those of the training text, sorted."""
        counts = Counter(self.train_text)
        return "".join(sorted(c for c, _ in counts.most_common(MOST)))

    @property
    def V(self) -> int:
        """How many ids there are, OTHER included."""
        return len(self.alphabet) + 1

    @cached_property
    def train(self) -> np.ndarray:
        """Ids of the training text, (N,) int64."""
        return self.encode(self.train_text)

    @cached_property
    def val(self) -> np.ndarray:
        """Ids of the held-out text, (N,) int64."""
        return self.encode(self.val_text)

    def encode(self, text: str) -> np.ndarray:
        """Characters -> ids, (N,) int64."""
        ids = {c: i + 1 for i, c in enumerate(self.alphabet)}
        return np.array([ids.get(c, OTHER) for c in text], dtype=np.int64)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Ids -> characters; OTHER is U+FFFD."""
        return "".join(("\ufffd" + self.alphabet)[i] for i in ids)

    def after(self, n: int) -> np.ndarray:
        """The last n ids of the training text, then the held-out ids: (n + N,).

        So the first held-out characters have a context, too. ValueError if n is more than there is.
        """
        if n > len(self.train):
            raise ValueError(f"{len(self.train)} training characters; give at least {n}")
        return np.concatenate((self.train[len(self.train) - n :], self.val))

    def bits_per_byte(self, nats: float, spelt: bool = False) -> float:
        """The nats that all of the held-out text costs, as bits per byte of UTF-8.

        Spelling each OTHER out is added, unless it is `spelt`: paid for in the nats.
        """
        others = 0 if spelt else np.count_nonzero(self.val == OTHER)
        return float(nats + SPELL * others) / math.log(2) / len(self.val_text.encode())


class Result(NamedTuple):
    """What a rung reached on the held-out text."""

    name: str
    sees: str  # what it predicts the next character from
    params: int  # numbers learnt from the training text
    bits_per_byte: float

    def __str__(self) -> str:
        return f"{self.name}: {self.bits_per_byte:.3f} bits per byte, {self.params:,} parameters"


Rung = Callable[[Corpus, float], Iterator[Result]]
"""A rung's `climb(corpus, effort)`: it learns, and yields what it reached; effort scales steps."""


def read_corpus(path: str) -> Corpus:
    """A text file split as `data.text.split_text` does. ValueError if it is too short."""
    train, val = ("".join(part) for part in split_text(read_text(path)))
    if len(train) < 1000 or not val.strip():
        n = len(train) + len(val)
        raise ValueError(f"{path}: {n} characters are too few; give some ten thousand")
    return Corpus(Path(path).name, train, val)


def rung_parser(name: str, doc: str | None) -> Parser:
    """The flags that every rung has: which text, and how long to train."""
    p = Parser(prog=f"python -m utils.ladder{name and '.'}{name}", description=doc)
    p.add_argument("--data", default=str(TINY), metavar="FILE", help="UTF-8 text (data/tiny.txt)")
    p.add_argument(
        "--effort", type=float, default=1.0, metavar="X", help="multiply the steps of training"
    )
    return p


def opened(name: str, doc: str | None, argv: Sequence[str] | None) -> tuple[Corpus, float]:
    """Parse a rung's flags: (the text, effort). ValueError for what can't be."""
    args = rung_parser(name, doc).parse_args(argv)
    return read_corpus(args.data), checked_effort(args.effort)


def checked_effort(effort: float) -> float:
    """Effort if it is a positive number, else ValueError."""
    if not 0 < effort < math.inf:
        raise ValueError(f"--effort {effort:g} is not a positive number; 1 is usual")
    return effort


def scaled(steps: int, effort: float) -> int:
    """Steps times effort, at least 1."""
    return max(1, round(steps * effort))


def scored_windows(ids: np.ndarray, T: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (M,T+1) that score ids[T:], and which of their T targets count, (M,T) bool.

    Each id counts once, after T/2 ids of its window at least: half of a window is context alone.
    ids is (T+N,), N >= 1.
    """
    N, step = len(ids) - T, T - T // 2
    starts = np.minimum(np.arange(step, N + step, step) - 1, N - 1)  # the last one ends at the end
    new = np.diff(starts, prepend=-1)  # targets that no window before has counted
    rows = np.lib.stride_tricks.sliding_window_view(ids, T + 1)[starts]
    return rows, np.arange(T) >= T - new[:, None]


def write(
    probs: Callable[[np.ndarray], np.ndarray], start: np.ndarray, n: int, seed: int = 0
) -> np.ndarray:
    """Draw n ids, each from probs(ids so far) (V,): how any of these models writes."""
    rng, ids = np.random.default_rng(seed), start
    for _ in range(n):
        p = probs(ids)
        ids = np.append(ids, rng.choice(len(p), p=p))
    return ids[len(start) :]
