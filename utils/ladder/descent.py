"""How the rungs from Bengio's up learn and are scored: AdamW on random windows, nats on all."""

from collections.abc import Callable, Iterator

import numpy as np

from model.numpy_gpt.layers import cross_entropy
from model.numpy_gpt.optim import State, adamw
from utils.ladder.corpus import scored_windows

Params = dict[str, np.ndarray]
LossAndGrads = Callable[[Params, np.ndarray, np.ndarray], tuple[float, Params]]


def fit(
    params: Params,
    loss_and_grads: LossAndGrads,
    ids: np.ndarray,
    steps: int,
    *,
    length: int,
    batch: int,
    lr: float,
    seed: int = 0,
) -> Iterator[float]:
    """Move params; yield the loss of each step's batch (nats).

    A batch is `batch` windows of length + 1 ids, drawn at random: all but the last of each, and all
    but the first, go to loss_and_grads. The learning rate falls to 0 along a line.
    """
    rng, state = np.random.default_rng(seed), State()
    windows = np.lib.stride_tricks.sliding_window_view(ids, length + 1)
    for step in range(steps):
        rows = windows[rng.integers(len(windows), size=batch)]
        loss, grads = loss_and_grads(params, rows[:, :-1], rows[:, 1:])
        now = lr * (1 - step / steps)
        adamw(params, grads, state, step + 1, lr=now, betas=(0.9, 0.99), weight_decay=0)
        yield loss


def held_out_nats(logits_of: Callable[[np.ndarray], np.ndarray], ids: np.ndarray, T: int) -> float:
    """What ids[T:] cost in all, each after at least T/2 ids: logits_of gives (B,T) -> (B,T,V)."""
    rows, counts = scored_windows(ids, T)
    nats = 0.0
    for i in range(0, len(rows), 64):
        part, count = rows[i : i + 64], counts[i : i + 64]
        targets = np.where(count, part[:, 1:], -1)  # -1 does not count
        nats += cross_entropy(logits_of(part[:, :-1]), targets)[0] * np.count_nonzero(count)
    return nats


def report(losses: Iterator[float], lines: int = 8) -> None:
    """Train to the end; print the mean loss of each eighth of the steps."""
    for part in np.array_split(list(losses), lines):
        if len(part):
            print(f"loss {part.mean():.3f} nats")
