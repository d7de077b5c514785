"""Each step's micro-batches, of whatever draws one by its number; shared out among the ranks."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field

import torch

from data.phases import Phase

Tensors = tuple[torch.Tensor, ...]


@dataclass
class Steps:
    """`batches(step)` gives a step's micro-batches, as `data.sampler.BatchSampler` does.

    Rank r of N gets numbers r, r+N, ... of the accum*N micro-batches that one process with N times
    the accumulation draws. With `prefetch` a thread draws the next step meanwhile.
    """

    batch: Callable[[int], Tensors]  # a pure function of the micro-batch's number
    _: KW_ONLY
    accum: int = 1
    rank: int = 0
    world_size: int = 1
    phases: Sequence[Phase] = (Phase(math.inf, 0, ()),)  # one, to the end
    prefetch: bool = False
    pin_memory: bool = False
    ahead: dict[int, Future[list[Tensors]]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.thread = ThreadPoolExecutor(1) if self.prefetch else None

    def draw(self, step: int) -> list[Tensors]:
        """The micro-batches of a step, drawn in this thread."""
        n = self.accum * self.world_size
        drawn = map(self.batch, range(step * n + self.rank, (step + 1) * n, self.world_size))
        if self.pin_memory:
            return [tuple(t.pin_memory() for t in batch) for batch in drawn]
        return list(drawn)

    def batches(self, step: int) -> list[Tensors]:
        """The micro-batches of a step. What goes wrong in the thread is raised here."""
        if self.thread is None:
            return self.draw(step)
        drawn = self.ahead.pop(step, None)
        batches = drawn.result() if drawn else self.draw(step)
        self.ahead = {step + 1: self.thread.submit(self.draw, step + 1)}
        return batches
