"""Which windows a step trains on: shuffled or random, from one text or several, by phase.

A pure function of the step, so a resumed run goes on exactly where it stopped, also in mid-epoch.
Letters: B rows of a micro-batch, T = block_size, n windows of an epoch.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache

import numpy as np
import torch

from data.loader import Batch
from data.permutation import keys_of, permuted
from data.phases import Phase
from data.store import forget_pages

Row = tuple[int, int]  # (text, k): the k-th window that this text gives in the phase


def shuffled_start(k: int, length: int, T: int, *seed: int) -> int:  # exercise: shuffled-windows
    """Where the k-th shuffled window of a text of `length` tokens begins.

    An epoch is n = (length - T) // T windows (at least 1) side by side from an offset in [0, T),
    each once; order and offset are new in each epoch. Up to T tokens at the ends wait for another.
    """
    n = max(1, (length - T) // T)
    epoch, i = divmod(k, n)
    *keys, last = keys_of(*seed, epoch)
    return last % min(T, length - n * T) + permuted(i, n, keys) * T


@dataclass(frozen=True)
class ShuffledWindows:
    """Each window of a text once per epoch, in a new order in each epoch."""

    lengths: Sequence[int]
    seed: int

    def starts(self, rows: Sequence[Row], T: int, phase: int, number: int) -> list[int]:
        """Where the window of each row begins."""
        return [shuffled_start(k, self.lengths[s], T, self.seed, phase, s) for s, k in rows]


@dataclass(frozen=True)
class RandomWindows:
    """Windows drawn with replacement, as nanoGPT does; of a single text, those of `batch_at`."""

    lengths: Sequence[int]
    seed: int

    def starts(self, rows: Sequence[Row], T: int, phase: int, number: int) -> list[int]:
        """Where the window of each row of micro-batch `number` of the run begins."""
        rng, starts = np.random.default_rng((self.seed, number)), [0] * len(rows)
        for text in sorted({s for s, _ in rows}):
            own = [i for i, (s, _) in enumerate(rows) if s == text]
            drawn = rng.integers(0, self.lengths[text] - T, len(own)).tolist()
            for i, start in zip(own, drawn, strict=True):
                starts[i] = start
        return starts


Windows = ShuffledWindows | RandomWindows
SAMPLERS: dict[str, type[Windows]] = {"shuffle": ShuffledWindows, "random": RandomWindows}


@lru_cache(64)
def cycle_order(weights: tuple[int, ...], seed: int, phase: int, cycle: int) -> tuple[int, ...]:
    """One cycle's texts in a random order: (2, 1) -> (0, 1, 0)."""
    order = np.repeat(np.arange(len(weights)), weights)
    if (order == order[0]).all():
        return tuple(order.tolist())
    return tuple(np.random.default_rng((seed, phase, cycle, 1)).permutation(order).tolist())


def row_at(i: int, weights: tuple[int, ...], seed: int, phase: int) -> Row:
    """(text, k) of row i of a phase, the k-th row of that text.

    Rows come in cycles of sum(weights): each text as often as its weight, in a new order. So it is
    known how many windows each text has given before.
    """
    cycle, at = divmod(i, sum(weights))
    order = cycle_order(weights, seed, phase, cycle)
    text = order[at]
    return text, cycle * weights[text] + order[:at].count(text)


@dataclass
class BatchSampler:
    """Gives each step its micro-batches: `batches(step)` -> list of (x, y), (B,T) each, int64.

    Rank r of N gets numbers r, r+N, ... of the accum*N micro-batches that one process with N times
    the accumulation draws. A phase with a shorter block_size has as many times more rows, so that
    a step's tokens stay the same. With `prefetch` a thread draws the next step meanwhile.
    ValueError if a text is not longer than block_size.
    """

    train: Sequence[np.ndarray]  # the training ids of each text
    phases: Sequence[Phase]
    _: KW_ONLY
    block_size: int
    batch_size: int
    accum: int
    seed: int
    sampling: str = "shuffle"
    rank: int = 0
    world_size: int = 1
    prefetch: bool = False
    pin_memory: bool = False
    ahead: dict[int, Future[list[Batch]]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for phase in self.phases:
            for tokens, weight in zip(self.train, phase.weights, strict=True):
                n, T = len(tokens), phase.block_size
                if weight and n <= T:
                    raise ValueError(
                        f"the training text has {n} tokens, too short for block_size={T}; "
                        f"give more text or --block_size {n - 1} or less"
                    )
        lengths = [len(tokens) for tokens in self.train]
        self.windows = SAMPLERS[self.sampling](lengths, self.seed)
        self.thread = ThreadPoolExecutor(1) if self.prefetch else None

    def phase_at(self, step: int) -> tuple[int, int, Phase]:
        """The phase of a step: its number, its first step, itself."""
        i = next(i for i, phase in enumerate(self.phases) if step < phase.until)
        return i, int(self.phases[i - 1].until) if i else 0, self.phases[i]

    def batch(self, number: int) -> Batch:
        """Micro-batch `number` of the run, counted over all ranks: x and y, (B,T)."""
        per_step = self.accum * self.world_size
        i, first, phase = self.phase_at(number // per_step)
        T = phase.block_size
        n_rows = self.batch_size * self.block_size // T
        chunk = np.empty((n_rows, T + 1), np.int64)  # first: there may be no room
        before = (number - first * per_step) * n_rows
        rows = [row_at(before + r, phase.weights, self.seed, i) for r in range(n_rows)]
        starts = self.windows.starts(rows, T, i, number)
        for out, (text, _), start in zip(chunk, rows, starts, strict=True):
            out[:] = self.train[text][start : start + T + 1]
        for tokens in self.train:
            forget_pages(tokens)
        x, y = torch.from_numpy(chunk[:, :-1]), torch.from_numpy(chunk[:, 1:])
        if self.pin_memory:
            return x.contiguous().pin_memory(), y.contiguous().pin_memory()
        return x, y

    def draw(self, step: int) -> list[Batch]:
        """The micro-batches of a step, drawn in this thread."""
        n = self.accum * self.world_size
        numbers = range(step * n + self.rank, (step + 1) * n, self.world_size)
        return [self.batch(number) for number in numbers]

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step. What goes wrong in the thread is raised here."""
        if self.thread is None:
            return self.draw(step)
        drawn = self.ahead.pop(step, None)
        batches = drawn.result() if drawn else self.draw(step)
        self.ahead = {step + 1: self.thread.submit(self.draw, step + 1)}
        return batches
