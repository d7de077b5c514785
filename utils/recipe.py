"""Settings for a text of one's own, by its length: what `train.py --data my.txt` takes.

They go over configs/tiny.yaml, whose model and optimizer stay. docs/recipe.md has the measurements.
"""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from data.phases import parse_counts

STEPS = 40, 350  # least and most: the latter take a minute and a half on two cores
BYTES = 1000  # of text for each step between them, so that every byte is seen some six times
ROWS = [  # texts of fewer bytes: what is better with them
    (50_000, {"vocab": 300, "dropout": 0.2, "lr": 0.007}),
    (250_000, {"vocab": 500, "dropout": 0.2, "lr": 0.007}),
    (1_500_000, {"vocab": 500, "dropout": 0.1, "lr": 0.007}),
    (math.inf, {"vocab": 2000, "dropout": 0.0, "lr": 0.015}),
]
ENDING = ("eval_every", "patience")  # what goes with the recipe's own steps alone
LONG = 5_000_000  # bytes from which on one evaluation is enough: none is short


def recipe(n_bytes: int) -> dict[str, Any]:
    """Settings for a text of n_bytes.

    A short text is soon learnt by heart: fewer steps and smaller ones, more dropout, and a small
    vocabulary, so that each token is seen often. A long one is not even seen whole.
    """
    steps = min(max(n_bytes // BYTES, STEPS[0]), STEPS[1])
    eval_every = steps if n_bytes >= LONG else steps // 5
    how_long = {"steps": steps, "eval_every": eval_every, "patience": 2}
    return {"n_layer": 4, **next(row for most, row in ROWS if n_bytes < most), **how_long}


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


def fine_tuning(n_bytes: int, lora: bool, block_size: int) -> dict[str, Any]:
    """Settings to go on training a pretrained model of that block_size with a text of n_bytes.

    One window a step, so that few tokens teach much; the text once to twice, then it is learnt by
    heart. No dropout, whatever the source had. docs/finetune.md has the measurements.
    """
    steps = min(max(n_bytes // 1750, 20), 300)
    return {
        "block_size": min(block_size, 512, max(n_bytes // 40, 8)),  # 8 windows at least
        "batch_size": 1,
        "steps": steps,
        "eval_every": -(-steps // 3),
        "patience": 1,
        "lr": 2e-3 if lora else 1e-4,
        "min_lr": 0.0,
        "schedule": "linear",
        "warmup": 10,
        "weight_decay": 0.0,
        "dropout": 0.0,
        "attn_dropout": 0.0,
    }


def going_further(objective: str, n_bytes: int, block_size: int) -> dict[str, Any]:
    """Settings to go on training a BERT, with masked tokens of a text of n_bytes or with classes.

    docs/bert.md has the measurements.
    """
    steps = min(max(n_bytes // 500, 100), 600) if objective == "masked" else 200
    return {
        "block_size": block_size,
        "batch_size": 16,
        "steps": steps,
        "eval_every": -(-steps // 4),
        "lr": 5e-4,
        "min_lr": 0.0,
        "schedule": "linear",
        "warmup": steps // 10,
        "dropout": 0.1,
    }
