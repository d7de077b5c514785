"""Distillation: an objective that learns a teacher's predictions, too (Hinton et al. 2015)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.training.objective import Batch


def soft_divergence(student: Tensor, teacher: Tensor, T: float) -> Tensor:
    """T^2 KL(p || q) of logits (N,V) -> (N,) nats, p = softmax(teacher / T), q of the student.

    T^2 makes up for gradients that shrink by 1 / T^2 (Hinton et al. 2015, section 2.1). Logits
    [0, 0] and a teacher's [log 3, 0] at T = 1: 3/4 log(3/2) + 1/4 log(1/2) = 0.131.
    """
    log_p, log_q = (F.log_softmax(z.float() / T, -1) for z in (teacher, student))
    return T**2 * (log_p.exp() * (log_p - log_q)).sum(-1)


@dataclass(frozen=True)
class Distillation:
    """Learn a teacher's predictions beside the next tokens, batch = (x, y) as `next_token`.

    nats = alpha T^2 KL(teacher || student) + (1 - alpha) cross-entropy (Hinton et al. 2015). Ids
    that only one of the two has, as some imported models do, are not compared.
    """

    teacher: nn.Module  # frozen, in eval mode
    alpha: float
    temperature: float

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of nats over the targets, and how many there are."""
        x, y = batch
        logits, nats = model(x, y, reduction="sum")  # (B,T,V)
        with torch.no_grad():
            taught = self.teacher(x)[0]
        V = min(logits.size(-1), taught.size(-1))
        own, taught = (z[..., :V].flatten(0, 1) for z in (logits, taught))
        apart = soft_divergence(own, taught, self.temperature)
        kl = (apart * (y.flatten() >= 0)).sum()
        return self.alpha * kl + (1 - self.alpha) * nats, torch.count_nonzero(y >= 0)


@dataclass(frozen=True)
class MaskedDistillation:
    """The same of masked tokens, batch as `utils.training.masked.masked_tokens` (Sanh et al. 2019).

    Of pairs the student also learns which go on, from the text alone.
    """

    teacher: nn.Module  # frozen, in eval mode
    alpha: float
    temperature: float

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of nats over the masked tokens, and how many there are."""
        x, y, *more = batch
        names = ("token_types", "padding", "is_next")
        pairs = dict(zip(names, more, strict=False))
        logits, loss = model(x, y, **pairs)  # (B,T,V)
        at, count = y >= 0, torch.count_nonzero(y >= 0)
        with torch.no_grad():
            pairs.pop("is_next", None)
            teacher: Any = self.teacher
            taught = teacher.head(teacher.hidden_states(x, **pairs)[at])
        V = min(logits.size(-1), taught.size(-1))
        kl = soft_divergence(logits[at][:, :V], taught[:, :V], self.temperature).sum()
        return self.alpha * kl + (1 - self.alpha) * loss * count, count
