"""The coordinate check: how far a few steps move what flows through a model, by its width.

With muP no activation moves further in a wider model; in the standard parametrization some do,
and a learning rate that suits the narrow one is too high (Yang et al. 2022, appendix D.1).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import GPTConfig, TinyGPT
from utils.config import OptimConfig
from utils.device import pick_device
from utils.training.mup import optimizer_for, scale_init
from utils.training.objective import next_token
from utils.training.step import TrainStep

BASE, V, B, T, HEAD = 32, 61, 4, 16, 16
NAMES = ("embedding", "attention", "mlp", "last norm", "logits")
Start = Callable[[TinyGPT, OptimConfig], TinyGPT]
Make = Callable[..., Any]  # optimizer_for, or one that is wrong on purpose


def activations(model: TinyGPT, idx: Tensor) -> dict[str, Tensor]:
    """What a model computes of idx (B,T), by name: of the last block, and what is around."""
    found: dict[str, Tensor] = {}
    block: Any = model.blocks[-1]
    layers = (model.tok_emb, block.attn, block.mlp, model.norm, model.head)

    def keep(name: str) -> Callable[..., None]:
        return lambda layer, args, out: found.update({name: out.detach()})

    hooks = [layer.register_forward_hook(keep(n)) for n, layer in zip(NAMES, layers, strict=True)]
    with torch.no_grad():
        model(idx)
    for hook in hooks:
        hook.remove()
    return found


def moved(
    width: int,
    optim: OptimConfig,
    seed: int,
    *,
    steps: int = 4,
    start: Start = scale_init,
    make: Make = optimizer_for,
) -> dict[str, float]:
    """Root mean square of each activation's change in a few steps on one batch."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "n_layer": 2,
        "d_model": width,
        "n_head": width // HEAD,
        "block_size": T,
    }
    config = GPTConfig(vocab_size=V, **shape, bias=False, tie_weights=False)
    model = start(TinyGPT(config), optim)
    device = pick_device("cpu", "float32")
    optimizer = make(model, optim, torch.float32)
    for group in optimizer.param_groups:
        group["lr"] = optim.lr * group.get("lr_scale", 1)
    step = TrainStep(model, next_token, optimizer, device.scaler(), device, grad_clip=0.0)
    idx = torch.randint(V, (B, T + 1), generator=torch.Generator().manual_seed(seed))
    batch = idx[:, :-1], idx[:, 1:]
    before = activations(model, batch[0])
    for _ in range(steps):
        step([batch])
    after = activations(model, batch[0])
    return {n: float((after[n] - before[n]).square().mean().sqrt()) for n in NAMES}


def growth(
    optim: OptimConfig, widths: Sequence[int], seeds: Sequence[int] = (1, 2, 3), **how: Any
) -> dict[str, float]:
    """The power of the width that each activation's change grows as: 0 is none, 1 is as the width.

    The slope of log change over log width, changes a mean over seeds.
    """
    every = [[moved(width, optim, seed, **how) for seed in seeds] for width in widths]
    slopes = {}
    for name in NAMES:
        y = [np.log(np.mean([found[name] for found in row])) for row in every]
        slopes[name] = float(np.polyfit(np.log(widths), y, 1)[0])
    return slopes


def check(widths: Sequence[int] = (32, 64, 128, 256)) -> None:
    """Print the growth of each activation, standard and muP, AdamW and Muon."""
    print(f"{'':16}" + "".join(f"{name:>11}" for name in NAMES))
    for optimizer in ("adamw", "muon"):
        for width, kind in ((0, "standard"), (BASE, "muP")):
            optim = OptimConfig(optimizer=optimizer, lr=0.01, mup_width=width, weight_decay=0)
            slopes = growth(optim, widths)
            print(
                f"{kind:9} {optimizer:6}" + "".join(f"{slopes[n]:11.2f}" for n in NAMES), flush=True
            )
