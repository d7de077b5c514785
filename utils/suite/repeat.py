"""Induction that needs no training format: random tokens twice over, and what each time costs.

A model that looks for what followed a token before finds the second copy cheap (Olsson et al.
2022, "In-context Learning and Induction Heads"). Letters: B rows, L tokens a copy.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

from model import TinyGPT
from utils.device import Device
from utils.suite.rows import Row, average

LONGEST = 32  # tokens a copy


def twice(pool: np.ndarray, rows: int, length: int, seed: int) -> torch.Tensor:
    """Rows of L tokens drawn from a pool, and again, (B,2L); the L differ if the pool has L."""
    rng = np.random.default_rng(seed)
    again = len(pool) < length
    once = [rng.choice(pool, length, replace=again) for _ in range(rows)]
    return torch.from_numpy(np.stack(once).astype(np.int64)).repeat(1, 2)


@torch.no_grad()
def losses(model: TinyGPT, idx: torch.Tensor, device: Device) -> tuple[np.ndarray, np.ndarray]:
    """Nats (B,N-1) of each token after the first of idx (B,N), and whether it was the likeliest."""
    nats, hits = [], []
    for row in idx.to(device.device):  # one by one: (B,N,V) of a large vocabulary is much
        with device.autocast():
            logits = model(row[None, :-1])[0][0].float()
        nats.append(F.cross_entropy(logits, row[1:], reduction="none").cpu().numpy())
        hits.append((logits.argmax(-1) == row[1:]).cpu().numpy())
    return np.stack(nats), np.stack(hits)


def chance(pool: np.ndarray) -> list[Row]:
    """What knowing the pool alone is worth."""
    nats = math.log(len(pool))
    rows = [Row("repeat", copy, 0, "chance", nats) for copy in ("first copy", "second copy")]
    return [*rows, Row("again", "second copy", 0, "chance", 1 / len(pool))]


def measure(model: TinyGPT, idx: torch.Tensor, device: Device) -> list[Row]:
    """Nats a token of both copies, and how many of the second's tokens were the likeliest.

    The first token of each copy does not count: nothing says which it is. A row of idx is one
    value, since its tokens depend on each other.
    """
    L = idx.size(1) // 2
    nats, hits = losses(model, idx, device)
    return [
        average("repeat", "first copy", 0, "model", nats[:, : L - 1].mean(1).tolist()),
        average("repeat", "second copy", 0, "model", nats[:, L:].mean(1).tolist()),
        average("again", "second copy", 0, "model", hits[:, L:].mean(1).tolist()),
    ]
