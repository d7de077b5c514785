"""One run of a sweep: trained, gone on with or found done; its figures. Knows no other run."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.config import Settings, flat, read_yaml, recorded_settings
from utils.reporting.events import Evaluation, Event, Interval, Step

Values = dict[str, Any]
# (percent, loss, of validation its bits per byte) -> go on, prune or stop
Report = Callable[[int, float, float | None], str]
GO_ON, PRUNE, STOP = "go on", "prune", "stop"


class Pruned(Exception):
    """The run was no better than others were at that time."""


class Listener:
    """A callback of `train.run` that reports how far a run is, and does as it is told."""

    def __init__(self, report: Report):
        self.report, self.percent = report, 0

    def __call__(self, event: Event) -> None:
        """Report rows of metrics.csv. To stop is as if nobody read what it says: it saves."""
        if isinstance(event, Step | Evaluation):
            self.percent = 100 * event.step // event.steps
        answer = GO_ON
        if isinstance(event, Interval):
            answer = self.report(self.percent, event.train_loss, None)
        if isinstance(event, Evaluation):
            bits = event.score.figures.get("bits_per_byte")
            answer = self.report(self.percent, event.score.loss, bits)
        if answer == PRUNE:
            raise Pruned
        if answer == STOP:
            raise BrokenPipeError("the sweep ends")


def train_one(
    train: Callable[..., Values], settings: Settings, report: Report = lambda *_: GO_ON
) -> Values:
    """Train a run by `train.run`, or go on with it, unless it is done; its figures.

    Raises Pruned, and KeyboardInterrupt after a signal, or if it is told to stop.
    """
    path = Path(settings.train.run)
    file = path / "summary.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if not found or not same(found["settings"], settings):
        try:
            found = train(settings, resume=begun(path, settings), callbacks=[Listener(report)])
        except BrokenPipeError:
            raise KeyboardInterrupt from None
        if found["stopped_by"].startswith("SIG"):
            raise KeyboardInterrupt
    return figures(path, found)


def same(values: Values, settings: Settings) -> bool:
    """Whether the settings of a run, which an older version may have begun, are these."""
    then, now = flat(recorded_settings(values)), flat(settings)
    if now["dtype"] == "auto":  # what that was then, this machine need not find again
        then["dtype"] = "auto"
    return then == now


def begun(path: Path, settings: Settings) -> bool:
    """Whether a run of these settings was interrupted there and can go on."""
    there = (path / "last.pt").exists() and (path / "config.yaml").exists()
    return there and same(read_yaml(path / "config.yaml"), settings)


def evaluated(path: Path, step: int, name: str) -> float:
    """A figure of the evaluation after a step, from metrics.csv; NaN if it has none."""
    if not (path / "metrics.csv").exists():
        return math.nan
    with open(path / "metrics.csv", encoding="utf-8", newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["step"] == str(step)]
    found = [float(r[name]) for r in rows if r.get(name)]
    return found[-1] if found else math.nan


def figures(path: Path, summary: Values) -> Values:
    """What a sweep keeps of a finished run. A run that diverged is done, too: its loss is inf."""
    diverged, best = summary["stopped_by"] == "diverged", summary.get("best_step", 0)
    return {
        "val_loss": math.inf if diverged else summary["best_val_loss"],
        "bits_per_byte": math.inf if diverged else evaluated(path, best, "val_bits_per_byte"),
        "accuracy": evaluated(path, best, "val_accuracy"),
        "next_accuracy": evaluated(path, best, "val_next_accuracy"),
        "seconds": summary["seconds"],
        "tokens": summary.get("tokens", 0),
        "params": summary["params"],
        "dtype": summary.get("settings", {}).get("dtype", ""),
    }
