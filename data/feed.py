"""Which windows a step trains on: shuffled or random, from one source or several, by phase.

A pure function of the step, so a resumed run goes on exactly where it stopped, also in mid-epoch.
Letters: B rows of a micro-batch, T = block_size, N windows of an epoch.
"""

import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from data.loader import forget_pages

ROUNDS = 6
MASK = 2**64 - 1


def scramble(z: int) -> int:
    """Mix 64 bits so that each one depends on all (the finalizer of SplitMix64, Steele 2014)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def permuted(i: int, n: int, keys) -> int:
    """Place i of a permutation of range(n) that is computed, never stored.

    A Feistel network on pairs (l, r) of a square of side a, a*a >= n; a value beyond n goes round
    again (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", cycle walking).
    """
    a = math.isqrt(n - 1) + 1
    while True:
        left, right = divmod(i, a)
        for key in keys:
            left, right = right, (left + scramble(key ^ right)) % a
        i = left * a + right
        if i < n:
            return i


@lru_cache(256)
def keys_of(*numbers: int) -> tuple[int, ...]:
    """ROUNDS + 1 keys of 64 bits that follow from these numbers."""
    return tuple(map(int, np.random.SeedSequence(numbers).generate_state(ROUNDS + 1, np.uint64)))


def shuffled_start(k: int, n: int, block_size: int, *seed: int) -> int:
    """Where the k-th shuffled window of n tokens begins.

    An epoch is N = (n - T) // T windows (at least 1) side by side from an offset in [0, T), each
    once; order and offset are new in each epoch. Up to T tokens at the ends wait for another one.
    """
    n_windows = max(1, (n - block_size) // block_size)
    epoch, i = divmod(k, n_windows)
    *keys, last = keys_of(*seed, epoch)
    offset = last % min(block_size, n - n_windows * block_size)
    return offset + permuted(i, n_windows, keys) * block_size


@dataclass(frozen=True)
class Phase:
    """Steps up to `until` (inf: to the end), their block_size, and a whole weight per source."""

    until: float
    block_size: int
    weights: tuple[int, ...]


def pairs(text: str, what: str) -> dict[str, int]:
    """Read "a=3 b=1" (or with commas) -> {"a": 3, "b": 1}. ValueError says what is wrong."""
    values: dict[str, int] = {}
    for part in text.replace(",", " ").split():
        name, _, number = part.rpartition("=")
        if not name or name in values or not (number.isascii() and number.isdigit()):
            raise ValueError(f"{what}: {part!r} is not a new NAME=WHOLE_NUMBER, as in tiny=3")
        values[name] = int(number)
    return values


def check_weights(weights: tuple[int, ...], what: str) -> None:
    """Raise ValueError unless the cycle of sum(weights) windows is neither empty nor absurd."""
    if not 0 < sum(weights) <= 1000:
        raise ValueError(f"{what}: weights sum to {sum(weights)}; let it be 1 to 1000")


def phases_of(text: str, names: list[str], weights: tuple[int, ...], block_size: int):
    """Read "until=250 block_size=64 tiny=1; tiny=1 plays=1" as a list of Phases.

    What a phase leaves out is the run's: all the weights, block_size. Only the last one has no
    `until`. ValueError if a phase names no source, or its block_size does not divide the run's.
    """
    found: list[Phase] = []
    parts = text.split(";") if text.strip() else [""]
    for i, part in enumerate(parts):
        values, what = pairs(part, "phases"), f"phases: {part.strip()!r}"
        until = values.pop("until", math.inf)
        before = found[-1].until if found else 0
        if (until == math.inf) != (i == len(parts) - 1) or until <= before:
            raise ValueError(f"{what}: each phase but the last needs an until=STEP, rising")
        T = values.pop("block_size", block_size)
        if not T or block_size % T:
            raise ValueError(f"{what}: block_size={T} does not divide the run's {block_size}")
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise ValueError(f"{what}: no source {unknown[0]!r}; there is {', '.join(names)}")
        own = tuple(values.get(name, 0) for name in names) if values else weights
        check_weights(own, what)
        found.append(Phase(until, T, own))
    return found


@dataclass
class Feed:
    """Gives each step its micro-batches: `batches(step)` -> list of (x, y), (B,T) each, int64.

    Rank r of world N gets places r, r+N, ... of the accum*N micro-batches that one process with N
    times the accumulation draws. A phase with a shorter block_size has as many times more rows, so
    that a step's tokens stay the same. With `prefetch` a thread draws the next step meanwhile.
    """

    sources: list[np.ndarray]  # the training ids of each
    phases: list[Phase]
    block_size: int
    batch_size: int
    accum: int
    seed: int
    sampling: str = "shuffle"
    rank: int = 0
    world: int = 1
    prefetch: bool = False
    ahead: dict[int, Future] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        for phase in self.phases:
            for tokens, weight in zip(self.sources, phase.weights, strict=True):
                if weight and len(tokens) <= phase.block_size:
                    raise ValueError(
                        f"a source of {len(tokens)} training tokens is too short for "
                        f"block_size={phase.block_size}; give more text or a smaller block_size"
                    )
        self.thread = ThreadPoolExecutor(1) if self.prefetch else None

    def batches(self, step: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The micro-batches of a step. What goes wrong in the thread is raised here."""
        if self.thread is None:
            return self.draw(step)
        now = self.ahead.pop(step, None)
        got = now.result() if now else self.draw(step)
        self.ahead = {step + 1: self.thread.submit(self.draw, step + 1)}
        return got

    def draw(self, step: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The same, in this thread."""
        n = self.accum * self.world
        places = range(step * n + self.rank, (step + 1) * n, self.world)
        return [self.batch(place) for place in places]

    def phase_at(self, step: int) -> tuple[int, int, Phase]:
        """The phase of a step: its number, its first step, itself."""
        first = 0
        for i, phase in enumerate(self.phases):
            if step < phase.until:
                return i, first, phase
            first = int(phase.until)
        raise AssertionError("the last phase has no end")

    def batch(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Micro-batch `number` of the run, counted over all ranks: x and y, (B,T)."""
        n = self.accum * self.world
        i, first, phase = self.phase_at(number // n)
        rows = self.batch_size * self.block_size // phase.block_size
        chunk = np.empty((rows, phase.block_size + 1), np.int64)  # first: there may be no room
        drawn = [self.place(row, i, phase) for row in rows_of(number - first * n, rows)]
        if self.sampling == "random":
            drawn = self.replaced(drawn, number, phase)
        for row, (s, k) in zip(chunk, drawn, strict=True):
            row[:] = self.sources[s][k : k + phase.block_size + 1]
        for tokens in self.sources:
            forget_pages(tokens)
        whole = torch.from_numpy(chunk)
        return whole[:, :-1], whole[:, 1:]

    def place(self, row: int, i: int, phase: Phase) -> tuple[int, int]:
        """(source, start) of a row, counted from the start of phase i.

        Rows come in cycles of sum(weights): each source as often as its weight, in a new order.
        So it is known how many windows each source has given before, and shuffle misses none.
        """
        cycle, at = divmod(row, sum(phase.weights))
        order = cycle_order(phase.weights, self.seed, i, cycle)
        source = order[at]
        k = cycle * phase.weights[source] + order[:at].count(source)
        if self.sampling == "random":
            return source, 0
        n = len(self.sources[source])
        return source, shuffled_start(k, n, phase.block_size, self.seed, i, source)

    def replaced(self, drawn, number: int, phase: Phase) -> list[tuple[int, int]]:
        """Starts drawn with replacement; of a single source, those of `batch_at`."""
        rng, starts = np.random.default_rng((self.seed, number)), {}
        for source in sorted({s for s, _ in drawn}):
            n = sum(s == source for s, _ in drawn)
            high = len(self.sources[source]) - phase.block_size
            starts[source] = iter(rng.integers(0, high, n).tolist())
        return [(source, next(starts[source])) for source, _ in drawn]


def rows_of(number: int, rows: int) -> range:
    """The rows of micro-batch `number`: 2, 3 -> 6, 7, 8."""
    return range(number * rows, (number + 1) * rows)


@lru_cache(64)
def cycle_order(weights: tuple[int, ...], seed: int, phase: int, cycle: int) -> tuple[int, ...]:
    """One cycle's sources in a random order: (2, 1) -> (0, 1, 0)."""
    slots = np.repeat(np.arange(len(weights)), weights)
    if (slots == slots[0]).all():
        return tuple(slots.tolist())
    rng = np.random.default_rng((seed, phase, cycle, 1))
    return tuple(rng.permutation(slots).tolist())
