"""One optimizer step: accumulate, autocast, unscale, check, clip, update."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from model.moe import balance
from utils.device import Device
from utils.distributed import SINGLE, Distributed, sync_gradients
from utils.training.objective import Batch, Objective
from utils.training.optim import AnyOptimizer

Numbers = list[list[float]]  # a list of each rank


@dataclass(frozen=True)
class TrainStep:
    """`loss, grad_norm, messages = TrainStep(model, objective, ...)(batches)` takes one step.

    The loss (nats) is the mean over all that the objective counts, in all micro-batches of all
    ranks. Raises FloatingPointError before the weights change if loss or gradient is not finite;
    only with float16 may a gradient overflow: its scaler then skips the step and halves its scale.
    """

    model: nn.Module
    objective: Objective
    optimizer: AnyOptimizer
    scaler: torch.amp.GradScaler
    device: Device
    grad_clip: float = 1.0
    dist: Distributed = SINGLE

    def __call__(
        self, batches: Sequence[Batch], message: Callable[[], Sequence[float]] = tuple
    ) -> tuple[float, float, Numbers]:
        """Step on this rank's micro-batches. Ranks exchange numbers once, and `message()` too."""
        self.model.train()
        n, scaler, optimizer = len(batches), self.scaler, self.optimizer
        losses, counts, positions = self.accumulate(batches)
        scaler.unscale_(optimizer)  # type: ignore[arg-type]
        params = self.params_with_grad()
        grads = [p.grad for p in params if p.grad is not None]
        norm = full_tensor(torch.nn.utils.get_total_norm(grads))
        numbers = torch.cat((losses, counts, norm[None])).tolist()  # the one wait for a GPU
        grad_norm = numbers.pop()
        gathered = self.dist.all_gather([*numbers, positions, *message()])
        every_loss, every_count = ([rank[i : i + n] for rank in gathered] for i in (0, n))
        if any(rank[2 * n] != positions for rank in gathered):
            raise ValueError("the ranks' batches differ in size; pad them to one")
        loss, total = mean_loss(every_loss, every_count)
        if (ratio := positions * self.dist.world_size / total) != 1:  # not every position counts
            norm, grad_norm = norm * ratio, grad_norm * ratio
            for grad in grads:
                grad.mul_(ratio)
        if self.diverged(loss, grad_norm):
            optimizer.zero_grad(set_to_none=True)
            which = blame(every_loss) or blame(self.dist.all_gather(self.norms(batches)))
            raise FloatingPointError(f"{which}loss {loss}, gradient norm {grad_norm}")
        torch.nn.utils.clip_grads_with_norm_(params, self.grad_clip or math.inf, norm)
        scaler.step(optimizer)  # type: ignore[arg-type]
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return loss, grad_norm, [rank[2 * n + 1 :] for rank in gathered]

    def accumulate(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor, int]:
        """Add up the gradients of all nats over all positions, of n micro-batches (B,T).

        Gives their mean losses (n,), their counts (n,), and the number of positions.
        """  # exercise: accumulate
        positions = sum(batch[0].numel() for batch in batches)
        losses, counts = [], []
        for i, batch in enumerate(batches, 1):
            sync_gradients(self.model, i == len(batches))
            with self.device.autocast():
                nats, count = self.objective(self.model, self.device.move(batch))
            nats = nats + count * balance(self.model)  # the same value: experts alone differ
            self.scaler.scale(nats / positions).backward()
            count = torch.as_tensor(count, device=nats.device)
            losses.append((nats.detach() / count.clamp(min=1e-9)).float())
            counts.append(count.float())
        return torch.stack(losses), torch.stack(counts), positions

    def params_with_grad(self) -> list[nn.Parameter]:
        """The parameters that the last backward pass has reached."""
        groups = self.optimizer.param_groups
        return [p for group in groups for p in group["params"] if p.grad is not None]

    def diverged(self, loss: float, grad_norm: float) -> bool:
        """Whether a step must not be taken. float16 may overflow until its scale is below 1."""
        may_overflow = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        return not math.isfinite(loss) or not (math.isfinite(grad_norm) or may_overflow)

    def norms(self, batches: Sequence[Batch]) -> list[float]:
        """The gradient's norm for each of this rank's micro-batches alone."""
        found = []
        sync_gradients(self.model, False)
        for batch in batches:
            with self.device.autocast():
                self.objective(self.model, self.device.move(batch))[0].backward()
            params = self.params_with_grad()
            found.append(float(sum(p.grad.norm() for p in params)))  # type: ignore[union-attr]
            self.optimizer.zero_grad(set_to_none=True)
        return found


def mean_loss(losses: Numbers, counts: Numbers) -> tuple[float, float]:  # exercise: mean-loss
    """Mean of each rank's losses by their counts, and the count: [[2, 6]], [[1, 3]] -> (5.0, 4).

    Raises ValueError if nothing counts.
    """
    pairs = list(zip(chain(*losses), chain(*counts), strict=True))
    total = sum(count for _, count in pairs)
    if not total:
        raise ValueError("a step without a target: all are -1; look at the data")
    return sum(loss * count for loss, count in pairs if count) / total, total


def blame(values: Numbers) -> str:
    """Name the first micro-batch that is not finite: [[2.0], [nan]] -> "batch 2 of 2: ".

    The ranks' micro-batches alternate: rank 0's first, rank 1's first, rank 0's second, ...
    """
    in_order = list(chain(*zip(*values, strict=True)))
    bad = [i for i, value in enumerate(in_order, 1) if not math.isfinite(value)]
    return f"batch {bad[0]} of {len(in_order)}: " if bad else ""


def full_tensor(t: Tensor) -> Tensor:
    """The whole of a tensor that FSDP has sharded, or the tensor itself."""
    return t.full_tensor() if hasattr(t, "full_tensor") else t
