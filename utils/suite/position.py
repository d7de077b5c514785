"""Loss by position in the context: how much of what a model may read does it use?

The validation split is cut into windows of T tokens, as `evaluate` does; position t has read t
tokens of its window. So the mean over all positions is the validation loss, to rounding. Windows
are what is independent: a standard error is that of means over windows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from data.loader import ordered_batches
from model import TinyGPT
from utils.device import Device
from utils.spread import mean, sd


@dataclass(frozen=True)
class Span:
    """Positions first to last, from 1 on: mean loss in nats, its standard error, windows."""

    first: int
    last: int
    loss: float
    se: float  # NaN of a single window
    windows: int

    @property
    def name(self) -> str:
        """As people read it: "5-8", or "1"."""
        return f"{self.first}-{self.last}" if self.last > self.first else str(self.first)


@torch.no_grad()
def token_losses(
    model: TinyGPT, tokens: np.ndarray, block_size: int, batch_size: int, device: Device
) -> np.ndarray:
    """Nats of each token of a split in its window (N,T); NaN where the last window has ended."""
    model.eval()
    found = []
    for batch in ordered_batches(tokens, block_size=block_size, batch_size=batch_size):
        x, y = device.move(batch)
        with device.autocast():
            logits = model(x)[0].float()
        nats = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=-1, reduction="none")
        found.append(torch.where(y < 0, math.nan, nats.view_as(y)).cpu().numpy())
    return np.concatenate(found)


def span(losses: np.ndarray, first: int, last: int) -> Span:
    """Positions first to last of losses (N,T). Every token weighs the same in the mean.

    Its standard error is that of the windows' sums over their counts (a ratio: Cochran 1977, 2.9).
    """
    part = losses[:, first - 1 : last]
    counts = (~np.isnan(part)).sum(1)
    part, counts = part[counts > 0], counts[counts > 0]
    sums, n = np.nansum(part, 1), len(counts)
    loss = float(sums.sum() / counts.sum())
    off = ((sums - loss * counts) / counts.mean()).tolist()
    return Span(first, last, loss, sd(off) / math.sqrt(n), n)


def by_position(losses: np.ndarray) -> list[Span]:
    """Each position by itself."""
    return [span(losses, t, t) for t in range(1, losses.shape[1] + 1)]


def doublings(T: int) -> list[tuple[int, int]]:
    """Spans that double, so that each has enough tokens: 12 -> (1,1) (2,2) (3,4) (5,8) (9,12)."""
    edges = [1, *(2**i + 1 for i in range(T.bit_length()) if 2**i < T), T + 1]
    return list(zip(edges, [end - 1 for end in edges[1:]], strict=False))


def by_doubling(losses: np.ndarray) -> list[Span]:
    """Mean losses of positions 1, 2, 3-4, 5-8, 9-16 and so on, those that were reached."""
    T = int((~np.isnan(losses)).any(0).sum())
    return [span(losses, *edges) for edges in doublings(T)]


def context_used(spans: Sequence[Span]) -> Span:
    """The first span that is not worse than the last by two standard errors, nor any after it."""
    last = spans[-1]
    for i in range(len(spans)):
        rest = spans[i:]
        if all(s.loss - last.loss <= 2 * math.hypot(s.se, last.se) for s in rest[:-1]):
            return spans[i]
    return last


def overall(losses: np.ndarray) -> float:
    """The mean over all tokens: what `evaluate` calls the loss."""
    return mean(losses[~np.isnan(losses)].tolist())
