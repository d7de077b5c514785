"""Trainings that a sweep's tests start: no torch, a loss that is known. Workers import them."""

import json
import math
import os
from pathlib import Path

from utils.config import flat, settings_from
from utils.reporting.events import Evaluation, Step
from utils.training.score import Score


def true_loss(settings):
    """Lowest, 1.0, at lr = 0.01; a layer costs 0.1, and so does a seed above 1."""
    far = math.log10(settings.optim.lr) + 2
    return 1 + far**2 + 0.1 * (settings.model.n_layer - 1) + 0.1 * (settings.train.seed - 1)


def summary_of(settings, loss=None):
    """What train.run gives, as far as a sweep reads it."""
    found = {"best_val_loss": loss or true_loss(settings), "stopped_by": "steps", "best_step": 4}
    found |= {"seconds": 2.0, "tokens": 400, "params": 7, "settings": flat(settings)}
    return found | {"tokens_per_s": 200, "data": {"text_sha256": "t", "val_bytes": 9}}


def trains(settings, *, resume=False, callbacks=()):
    """Four steps, each scored: the loss falls to `true_loss`. Writes summary.json."""
    for step in range(1, 5):
        score = Score((true_loss(settings) + 4 - step) * 100, 100, 200)
        for hear in callbacks:
            hear(Step(step, 4, score.loss, 1.0, 0.0))
            hear(Evaluation(step, 4, 100 * step, 0.5 * step, score, {}, True))
    path = Path(settings.train.run)
    path.mkdir(parents=True, exist_ok=True)
    (path / "summary.json").write_text(json.dumps(summary_of(settings)))
    return summary_of(settings)


def breaks(settings, **kwargs):
    """With lr 0.1 an error, with 0.2 the end of the process, else as `trains`."""
    if settings.optim.lr == 0.1:
        raise RuntimeError("out of\nmemory")
    if settings.optim.lr == 0.2:
        os._exit(9)
    return trains(settings, **kwargs)


def write_run(name, losses, **values):
    """Finished runs name-seed1, name-seed2, ... of these losses."""
    for seed, loss in enumerate(losses, 1):
        settings = settings_from({"dtype": "float32", "seed": seed, **values})
        path = Path("runs", f"{name}-seed{seed}")
        path.mkdir(parents=True)
        (path / "summary.json").write_text(json.dumps(summary_of(settings, loss)))
