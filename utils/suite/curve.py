"""The models that a run kept on its way (--keep N), from the one that it began with."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from model import MODELS, TinyGPT
from utils.config import recorded_settings
from utils.training.checkpoint import model_config
from utils.training.models import load_model


def kept(run: Path) -> list[int]:
    """Steps of the checkpoints stepN.pt. ValueError if they make no curve."""
    found = [re.fullmatch(r"step(\d+)\.pt", path.name) for path in run.glob("step*.pt")]
    steps = sorted(int(name[1]) for name in found if name)
    if len(steps) < 2:
        cure = "train with --keep 20, and --eval_every a twentieth of --steps"
        raise ValueError(f"{run} has {len(steps)} checkpoints stepN.pt, a curve takes 2; {cure}")
    return steps


def untrained(checkpoint: dict[str, Any]) -> TinyGPT | None:
    """The weights that a run began with, by its seed; None if it began with those of another."""
    if checkpoint.get("source") or checkpoint.get("base"):
        return None
    torch.manual_seed(recorded_settings(checkpoint["settings"]).train.seed)
    return MODELS[checkpoint.get("kind", "gpt")][1](model_config(checkpoint))


def models(run: Path) -> Iterator[tuple[int, TinyGPT]]:
    """(step, model) of a run from step 0 on. ValueError as `kept`."""
    steps = kept(run)
    first = untrained(load_model(run, f"step{steps[0]}")[2])
    if first is not None:
        yield 0, first
    for step in steps:
        yield step, load_model(run, f"step{step}")[0]


def validation_losses(run: Path) -> list[tuple[int, float]]:
    """(step, validation loss) of a run's metrics.csv; none if it is not there."""
    path = run / "metrics.csv"
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    return [(int(r["step"]), float(r["val_loss"])) for r in rows if r.get("val_loss")]
