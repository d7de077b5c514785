"""The best learning rate of a width and a seed: trainings around it, a factor of two apart.

A step k of the grid is a learning rate of 2^k / 1000.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.config import Settings
from utils.flags import settings_of
from utils.parabola import minimum
from utils.scaling.fit import line
from utils.sweep.workers import Pool

Losses = dict[int, float]  # step of the grid -> validation loss, infinite if it diverged
BASE, LAYERS, HEAD, B, T = 64, 2, 32, 8, 32
MOST = 9  # steps of the grid that are tried, upwards or downwards of 0


@dataclass(frozen=True)
class Panel:
    """What is compared: standard parametrization or muP, with an optimizer, decayed or not."""

    mup: bool
    optimizer: str
    decay: float = 0.0

    @property
    def title(self) -> str:
        """As a picture says it."""
        name = {"adamw": "AdamW", "muon": "Muon"}[self.optimizer]
        kind = "muP" if self.mup else "standard"
        return f"{kind}, {name}" + (f", decay {self.decay:g}" if self.decay else "")


@dataclass(frozen=True)
class Found:
    """What a width gave: losses of each seed, and the best step of the grid, NaN if none is."""

    width: int
    losses: Sequence[Losses]
    best: Sequence[float]


def settings(
    panel: Panel, width: int, k: int, seed: int, data: str, steps: int, root: Path
) -> Settings:
    """A training's settings. At the base width muP changes nothing, so its run serves both."""
    mup = BASE if panel.mup and width != BASE else 0
    kind = f"{'mup' if mup else 'sp'}-{panel.optimizer}-decay{panel.decay:g}"
    values: dict[str, Any] = {
        "n_layer": LAYERS,
        "d_model": width,
        "d_ff": 2 * width,
        "block_size": T,
    }
    values |= {"n_head": width // HEAD, "pos": "rope", "norm": "layernorm", "mlp": "gelu"}
    values |= {"qk_norm": False, "zero_init": False, "bias": False, "tie_weights": False}
    values |= {"emb_std": 0.02, "emb_conv": 0, "dropout": 0.0, "attn_dropout": 0.0}
    values |= {"optimizer": panel.optimizer, "mup_width": mup, "lr": 2**k / 1000, "min_lr": 0}
    values |= {"weight_decay": panel.decay, "momentum": 0.95, "beta2": 0.99, "grad_clip": 1.0}
    values |= {"schedule": "linear", "warmup": steps // 10, "batch_size": B, "steps": steps}
    values |= {"eval_every": steps, "log_every": steps, "sample": 0, "patience": 0}
    values |= {"data": data, "tokenizer": "char", "dtype": "float32", "seed": seed}
    run = root / kind / f"width={width},lr={2**k / 1000:g},seed={seed}"
    return settings_of(Namespace(config=None, **values, run=str(run)))


def train(pool: Pool, what: Settings) -> float:
    """The validation loss of a training, now or before. Its checkpoints, all large, go."""
    loss: float = pool.train(what)["val_loss"]
    for name in ("best.pt", "last.pt"):
        (Path(what.train.run) / name).unlink(missing_ok=True)
    return loss


def walk(loss_at: Callable[[int], float], start: int, reach: int) -> Losses:
    """Try learning rates around `start`, and on, until `reach` worse ones are on either side.

    Raises ValueError if the loss falls on and on.
    """
    losses: Losses = {}
    best = start
    while True:
        for k in range(best - reach, best + reach + 1):
            if k not in losses:
                losses[k] = loss_at(k)
        lowest = min(losses, key=lambda k: losses[k])
        if lowest == best:
            return losses
        if abs(lowest) > MOST:
            raise ValueError(f"the loss falls on at a learning rate of {2.0**lowest / 1000:g}")
        best = lowest


def best_step(losses: Losses) -> float:
    """Where the loss is lowest, between the steps of the grid: a parabola through three of them.

    NaN if a neighbour of the lowest diverged.
    """
    k = min(losses, key=lambda k: losses[k])
    around = [k - 1, k, k + 1]
    heights = [losses[i] for i in around]
    return minimum(around, heights)[0] if np.isfinite(heights).all() else float("nan")


def drift(found: Sequence[Found]) -> tuple[float, float]:
    """(octaves of learning rate per octave of width, standard error): a line through all seeds.

    1 / width would be -1, no drift 0.
    """
    points = [(np.log2(f.width), k) for f in found for k in f.best if np.isfinite(k)]
    x, y = np.array(points).T
    slope, error, _ = line(x, y)
    return slope, error


def cost(found: Sequence[Found]) -> tuple[float, float]:
    """(nats, octaves): what it costs the widest model to take the narrowest one's learning rate.

    Read off the nearest learning rate that was tried, as a mean over seeds; NaN if none is near.
    """
    narrow, wide = found[0], found[-1]
    k = round(float(np.nanmean(narrow.best)))
    lost = [losses[k] - min(losses.values()) for losses in wide.losses if k in losses]
    return (float(np.mean(lost)) if lost else float("nan")), float(
        np.nanmean(wide.best) - np.nanmean(narrow.best)
    )
