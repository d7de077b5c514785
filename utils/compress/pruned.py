"""A pruned run, from a run: written whole or not at all, and not if it has lost its language."""

import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import TinyGPT
from model.adapt.prune import (
    fewer_channels,
    fewer_heads,
    fewer_layers,
    kept_2_of_4,
    kept_share,
    sparse,
    zeros_of,
)
from utils.compress.calibrate import calibration_ids
from utils.compress.quantized import size_of, write
from utils.config import Settings, recorded_settings
from utils.training.models import base_of, load_model, merged

SPARSE = "magnitude", "wanda"  # zeros in place; the others take out what is whole
METHODS = (*SPARSE, "heads", "channels", "layers")
BLOW_UP = math.log(10)  # nats that the loss may rise: perplexity, ten times
AT_ONCE = 4  # windows


@dataclass(frozen=True)
class Pruning:
    """How a run is pruned: a share of the weights, heads or channels, or a number of blocks."""

    method: str
    sparsity: str = ""  # 0.5, or 2:4
    drop: int = 0

    def __post_init__(self) -> None:
        layers = self.method == "layers"
        if layers == bool(self.sparsity) or layers != bool(self.drop):
            wanted = "--drop N, a number of blocks" if layers else "--sparsity S, as 0.5"
            raise ValueError(f"--prune {self.method} goes with {wanted}, and nothing else")
        if self.drop < 0:
            raise ValueError(f"--drop {self.drop} must be 1 or more")
        if self.sparsity == "2:4" and self.method not in SPARSE:
            raise ValueError(f"--sparsity 2:4 is for {' and '.join(SPARSE)}, not {self.method}")
        if not layers and not 0 < self.share < 1:
            raise ValueError(f"--sparsity {self.sparsity} must be above 0 and below 1, or 2:4")

    @property
    def share(self) -> float:
        """The sparsity as a number; NaN for what is none."""
        try:
            return 0.5 if self.sparsity == "2:4" else float(self.sparsity)
        except ValueError:
            return math.nan

    def __str__(self) -> str:
        """In words: `wanda 0.5`."""
        return f"{self.method} {self.sparsity or self.drop}"


def pruned(model: TinyGPT, ids: Tensor, how: Pruning) -> TinyGPT:
    """A pruned model; ids (B,T) are the calibration text."""
    if how.method in SPARSE:
        keep = kept_2_of_4 if how.sparsity == "2:4" else partial(kept_share, sparsity=how.share)
        return sparse(model, keep, ids if how.method == "wanda" else None)
    if how.method == "layers":
        return fewer_layers(model, ids, how.drop)
    return {"heads": fewer_heads, "channels": fewer_channels}[how.method](model, ids, how.share)


@torch.no_grad()
def loss_on(model: TinyGPT, ids: Tensor) -> float:
    """Mean loss (nats) of the next token within windows (B,T)."""
    losses = [model(p[:, :-1], p[:, 1:], loss_only=True)[1] for p in ids.split(AT_ONCE)]
    sizes = [len(p) for p in ids.split(AT_ONCE)]
    return sum(float(x) * n for x, n in zip(losses, sizes, strict=True)) / len(ids)


def check_loss(before: float, after: float, how: Pruning, force: bool) -> None:
    """Say what pruning costs. ValueError if perplexity rises tenfold, unless forced."""
    print(f"loss    {after:.3f} nats a token on the calibration text; {before:.3f} before")
    if after - before <= BLOW_UP:
        return
    why = f"{how} makes perplexity {math.exp(min(after - before, 99)):,.0f} times as high"
    if not force:
        raise ValueError(f"{why}; prune less, or take --force and train it afterwards")
    print(f"warning {why}: this model is broken until it is trained")


def settings_for(settings: Settings, model: TinyGPT, how: Pruning) -> Settings:
    """A run's settings, with the shape that its model has now, and whether zeros are to stay."""
    names = "n_layer", "n_head", "n_kv_head", "head_dim", "d_ff"
    shape = {name: getattr(model.config, name) for name in names}
    train = replace(settings.train, keep_zeros=how.method in SPARSE)
    return replace(settings, model=replace(settings.model, **shape), train=train)


def prune(
    source: Path, out: Path, how: Pruning, text: Path, which: str = "best", *, force: bool = False
) -> None:
    """Make the run `out` of the run `source`, pruned, and say what it is and what that costs.

    Raises ValueError for a quantized run, a text that is too short, or a loss that blows up.
    """
    if out.resolve() == source.resolve():
        raise ValueError(f"--out must name another run than {source}, which stays as it is")
    model, tokenizer, checkpoint = load_model(source, which)
    if checkpoint.get("quantized"):
        raise ValueError(f"{source} is quantized; prune the run that it was made from")
    model = merged(model).eval()
    ids = calibration_ids(text, tokenizer, model)
    small = pruned(model, ids, how)
    check_loss(loss_on(model, ids), loss_on(small, ids), how, force)
    about: dict[str, Any] = {"pruned": asdict(how), "model_config": asdict(small.config)}
    about |= {"step": 0, "best_step": 0, "best_val_loss": math.inf}  # what was scored was another
    settings = settings_for(recorded_settings(checkpoint["settings"]), small, how)
    write(source, out, small, {**checkpoint, **about}, base_of(source, which), settings)
    report(out, model, small, how)


def report(out: Path, model: TinyGPT, small: TinyGPT, how: Pruning) -> None:
    """Say what has been made."""
    n, before = small.n_params(), model.n_params()
    print(f"params  {n:,}, {n / before:.1%} of {before:,}; {size_of(small) / 1e6:,.1f} MB")
    if how.method in SPARSE:
        print(f"zeros   {zeros_of(small):.1%} of the blocks' matrices: no smaller, no faster")
    print(f"run     {out}: {how}; next: python eval.py --run {out}, or train.py --init {out}")
