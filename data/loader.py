"""Windows of tokens: random batches, a pure function of the step, and a whole split in order.

Letters: B = batch_size, T = block_size.
"""

from collections.abc import Iterator

import numpy as np
import torch

from data.store import forget_pages

Batch = tuple[torch.Tensor, torch.Tensor]


def windows(tokens: np.ndarray, starts: np.ndarray, block_size: int) -> Batch:  # exercise: windows
    """Cut windows at starts (B,): x (B,T) and y (B,T), the same one position on, int64."""
    chunk = torch.from_numpy(tokens[starts[:, None] + np.arange(block_size + 1)].astype(np.int64))
    return chunk[:, :-1], chunk[:, 1:]


def batch_at(
    tokens: np.ndarray, step: int, *, block_size: int, batch_size: int, seed: int
) -> Batch:
    """Batch number `step`: x and y, (B,T) each, from windows drawn at random with replacement.

    Pure: the same arguments give the same batch, so no state needs saving. Windows may overlap.
    """
    rng = np.random.default_rng((seed, step))
    starts = rng.integers(0, len(tokens) - block_size, batch_size)
    return windows(tokens, starts, block_size)


def ordered_batches(tokens: np.ndarray, *, block_size: int, batch_size: int) -> Iterator[Batch]:
    """Cover a split from start to end: every token but the first is a target exactly once.

    x and y are (B,T), B <= batch_size; the tail is padded with target -1, which does not count.
    """  # exercise: ordered-batches
    for i in range(0, len(tokens) - 1, batch_size * block_size):
        chunk = tokens[i : i + batch_size * block_size + 1].astype(np.int64)
        pad = -(len(chunk) - 1) % block_size
        x = np.pad(chunk[:-1], (0, pad)).reshape(-1, block_size)
        y = np.pad(chunk[1:], (0, pad), constant_values=-1).reshape(-1, block_size)
        forget_pages(tokens)
        yield torch.from_numpy(x), torch.from_numpy(y)
