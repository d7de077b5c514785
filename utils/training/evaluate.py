"""How good a model is: its score over a whole split."""

from collections.abc import Mapping

import numpy as np
import torch

from data.loader import ordered_batches
from data.store import TokenDataset
from model import TinyGPT
from utils.device import Device
from utils.training.objective import Objective
from utils.training.score import Score


@torch.no_grad()
def evaluate(  # exercise: evaluate
    model: TinyGPT,
    objective: Objective,
    tokens: np.ndarray,
    n_bytes: int,
    batch_size: int,
    device: Device,
    block_size: int = 0,
) -> Score:
    """Score a whole split in order, by windows of block_size tokens; 0 = as many as the model's."""
    training, total, count = model.training, 0.0, 0
    model.eval()
    T = block_size or model.config.block_size
    for batch in ordered_batches(tokens, block_size=T, batch_size=batch_size):
        with device.autocast():
            nats, n = objective(model, device.move(batch))
        if n:  # by way of the mean in float32, as before 0.2.0: its runs go on to the bit
            total, count = total + float((nats / n).float()) * int(n), count + int(n)
    model.train(training)
    return Score(total, count, n_bytes)


def evaluate_all(
    model: TinyGPT,
    objective: Objective,
    datasets: Mapping[str, TokenDataset],
    batch_size: int,
    device: Device,
    block_size: int = 0,
) -> tuple[Score, dict[str, Score]]:
    """Score every source's validation split: (all together, each by name)."""
    how = batch_size, device, block_size
    parts = {
        name: evaluate(model, objective, d.val, d.val_bytes, *how) for name, d in datasets.items()
    }
    first, *others = parts.values()
    return sum(others, first), parts
