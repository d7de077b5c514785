"""Settings for a text of one's own, by its length: what `train.py --data my.txt` takes.

They go over configs/tiny.yaml, whose model and optimizer stay. docs/recipe.md has the measurements.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from data.phases import parse_counts

STEPS = 350  # about a minute on two cores
BYTES = 1200  # of text for each step: every byte is seen some five times


def recipe(n_bytes: int) -> dict[str, Any]:
    """Settings for a text of n_bytes; each rises or falls with the length.

    A short text is soon learnt by heart: fewer steps and smaller ones, more dropout, a small
    vocabulary whose tokens are all seen often. A long one is not seen whole.
    """
    steps = min(STEPS, max(20, n_bytes // BYTES))
    return {
        "vocab": 400 if n_bytes < 50_000 else 1000 if n_bytes < 1_500_000 else 2000,
        "dropout": 0.2 if n_bytes < 250_000 else 0.1 if n_bytes < 1_500_000 else 0.0,
        "lr": 0.005 if n_bytes < 50_000 else 0.01,
        "steps": steps,
        "eval_every": max(1, steps // 5) if n_bytes < 5_000_000 else steps,
        "patience": 2,
    }


def text_bytes(data: str, mixture: str = "") -> int:
    """Bytes of a text file, of what a prepared directory was made from, or of a mixture's texts.

    What is not there has 0: opening it says so.
    """
    total = 0
    for path in map(Path, parse_counts(mixture, "mixture") or [data]):
        meta = path / "meta.json"
        if path.is_file():
            total += path.stat().st_size
        elif meta.is_file():
            with suppress(ValueError, KeyError, TypeError):  # damaged: opening it says so, too
                known = json.loads(meta.read_text(encoding="utf-8"))
                total += known["train_bytes"] + known["val_bytes"]
    return total
