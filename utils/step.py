"""One optimizer step: accumulate, autocast, unscale, clip, check, update."""

import math
from collections.abc import Sequence

import torch

from utils.device import Device
from utils.ranks import ALONE, Ranks, sync


def loss_of(model, x, y, device: Device):
    """Mean cross-entropy of a micro-batch x, y (B,T), moved to the device, under autocast.

    Without any target the mean would be 0/0: then some finite loss, which is to count nothing.
    """
    y = y if (y >= 0).any() else x
    x, y = x.to(device.device, non_blocking=True), y.to(device.device, non_blocking=True)
    with device.autocast():
        return model(x, y, loss_only=True)[1]


def norms_alone(model, params, batches, device: Device) -> list[float]:
    """The gradient's norm for each micro-batch by itself, to find the one that is at fault."""
    norms = []
    sync(model, False)  # this rank's own gradient, not the mean over ranks
    for x, y in batches:
        loss_of(model, x, y, device).backward()
        norms.append(float(sum(p.grad.norm() for p in params if p.grad is not None)))
        for p in params:
            p.grad = None
    return norms


def blame(values: list[float]) -> str:
    """Name the first micro-batch whose value is not finite: [2.0, nan] -> "batch 2 of 2: "."""
    bad = [i for i, value in enumerate(values, 1) if not math.isfinite(value)]
    return f"batch {bad[0]} of {len(values)}: " if bad else ""


def train_step(
    model,
    optimizer,
    scaler,
    batches: Sequence,
    device: Device,
    grad_clip: float = 1.0,
    ranks: Ranks = ALONE,
) -> tuple[float, float]:
    """One step on micro-batches (x, y); gives loss (nats) and gradient norm.

    The loss is the mean over all targets of the step, on all ranks; a target of -1 does not count.
    Raises FloatingPointError before the weights change if loss or gradient is not finite; only with
    float16 may a gradient overflow, since its scaler then skips the step and halves its scale.
    """
    model.train()
    mine = [int((y >= 0).sum()) for _, y in batches]
    counts = ranks.places(mine)
    total, losses = sum(counts), []
    if not total:
        raise ValueError("a step without a target: all are -1; look at the data")
    for i, (n, (x, y)) in enumerate(zip(mine, batches, strict=True)):
        sync(model, i == len(batches) - 1)
        loss = loss_of(model, x, y, device)
        share = total / (n * ranks.world) if n else math.inf  # ranks' gradients are averaged
        scaler.scale(loss / share).backward()
        losses.append(loss.detach())
    scaler.unscale_(optimizer)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(params, grad_clip or math.inf)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    *nats, grad_norm = torch.stack([*losses, norm]).tolist()  # one wait for the device
    nats = ranks.places(nats)
    loss = sum(a * n for a, n in zip(nats, counts, strict=True) if n) / total
    if not math.isfinite(loss) or not (math.isfinite(grad_norm) or scaler.is_enabled()):
        optimizer.zero_grad(set_to_none=True)
        who = blame(nats) or blame(ranks.places(norms_alone(model, params, batches, device)))
        raise FloatingPointError(f"{who}loss {loss}, gradient norm {grad_norm}")
    if not math.isfinite(grad_norm) and scaler.get_scale() < 1:
        raise FloatingPointError(f"gradient norm {grad_norm} however small float16's scale")
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return loss, grad_norm
