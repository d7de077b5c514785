"""One optimizer step: accumulate, autocast, unscale, clip, check, update."""

import math
from collections.abc import Sequence

import torch

from utils.device import Device


def train_step(
    model, optimizer, scaler, batches: Sequence, device: Device, grad_clip: float = 1.0
) -> tuple[float, float]:
    """One step on the mean loss of micro-batches (x, y); gives loss (nats) and gradient norm.

    Raises FloatingPointError before the weights change if loss or gradient is not finite; only with
    float16 may a gradient overflow, since its scaler then skips the step and halves its scale.
    """
    model.train()
    losses = []
    for x, y in batches:
        x, y = x.to(device.device, non_blocking=True), y.to(device.device, non_blocking=True)
        with device.autocast():
            _, loss = model(x, y)
        scaler.scale(loss / len(batches)).backward()
        losses.append(loss.detach())
    scaler.unscale_(optimizer)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(params, grad_clip or math.inf)
    loss, grad_norm = torch.stack(
        [sum(losses) / len(batches), norm]
    ).tolist()  # one wait for the device
    if not math.isfinite(loss) or not (math.isfinite(grad_norm) or scaler.is_enabled()):
        optimizer.zero_grad(set_to_none=True)
        raise FloatingPointError(f"loss {loss}, gradient norm {grad_norm}")
    if not math.isfinite(grad_norm) and scaler.get_scale() < 1:
        raise FloatingPointError(f"gradient norm {grad_norm} however small float16's scale")
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return loss, grad_norm
