"""What a step minimises: objective(model, batch) -> (nats, count), a sum and how many it sums.

The loss of a step is the sum of all nats over the sum of all counts, however they are shared out.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, ...]
Objective = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]


def next_token(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the next tokens, batch = (x, y), (B,T) each; a target of -1 counts nothing.

    nats = -sum of log p(y | x so far), equation 1 of docs/theory.md.
    """
    x, y = batch
    _, nats = model(x, y, loss_only=True, reduction="sum")
    return nats, torch.count_nonzero(y >= 0)
