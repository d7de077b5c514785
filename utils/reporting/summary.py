"""summary.json: how a run went, on which machine, from which commit."""

import json
import math
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from tok.cli import cores
from tok.files import replacing
from utils.device import peak_memory
from utils.reporting.tracker import Tracker
from utils.training.checkpoint import TrainState

ROOT = Path(__file__).parents[2]


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file that is whole or not there."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as part:
        Path(part).write_text(text, encoding="utf-8")


def summarize(
    state: TrainState, tracker: Tracker, ranks: int, stopped_by: str, commit: dict[str, Any]
) -> dict[str, Any]:
    """What summary.json holds. `stopped_by`: steps, minutes, patience, diverged, or a signal."""
    clock, tokens = tracker.clock, tracker.tokens
    best = state.best_val_loss
    return {
        "best_val_loss": best if math.isfinite(best) else None,  # JSON has no infinity
        "best_step": state.best_step,
        "steps": state.step,
        "stopped_by": stopped_by,
        "tokens": tokens,
        "epochs": round(tokens / state.data["train_tokens"], 3),  # times the text was seen
        "seconds": round(clock.training, 3),  # of training: steps and data
        "seconds_in": {part: round(s, 3) for part, s in clock.seconds_in().items()},
        "tokens_per_s": round(tokens / max(clock.training, 1e-9)),
        "peak_memory": peak_memory(),  # bytes of this process, or of its GPU
        "spikes": tracker.spikes.total,
        "overflows": tracker.overflows,
        "params": state.model.n_params(),
        "seed": state.settings["seed"],
        "ranks": ranks,
        "data": state.data,
        "settings": state.settings,
        "machine": machine(),
        **commit,
    }


def commit(root: Path = ROOT) -> dict[str, Any]:
    """The checkout's commit, and whether files differ from it; None, None where there is none."""
    unknown = {"commit": None, "dirty": None}
    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "-uno"]
    if not (root / ".git").exists():  # nor does that of some folder above it count
        return unknown
    try:
        lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no git, or not allowed here
        return unknown
    head, *rest = lines.splitlines()
    return {"commit": head.split()[-1], "dirty": any(line[0] != "#" for line in rest)}


def machine() -> dict[str, str]:
    """What the run ran on: versions and processor."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": str(torch.get_num_threads()),
        "cores": str(cores()),
    }
