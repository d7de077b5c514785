"""The points of a sweep as rows, best first: on the screen while they train, and results.csv."""

import csv
import math
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tok.files import replacing
from utils.spread import mean, sd
from utils.sweep.one_run import Values
from utils.training.score import perplexity

SHARES = ["accuracy", "accuracy_sd", "next_accuracy", "next_accuracy_sd"]  # of BERTs
SHOWN = ["val_loss", "val_loss_sd", "val_ppl", "bits_per_byte", *SHARES, "seconds", "seeds"]
DONE = ("done", "diverged")
MEAN = {
    "val_loss": 4,
    "bits_per_byte": 4,
    "accuracy": 4,
    "next_accuracy": 4,
    "seconds": 1,
}  # digits


@dataclass
class Point:
    """Settings that are tried together, how that went, and each seed's figures."""

    values: Values
    status: str = "waiting"  # running, done, diverged, pruned, crashed
    note: str = ""  # how far it is, or why it crashed
    runs: list[Values] = field(default_factory=list)
    measure: str = "val_loss"  # or bits_per_byte: what points are ranked by

    @property
    def score(self) -> float:
        """The mean of `measure` over seeds, less is better; inf while there is none."""
        score = mean([run[self.measure] for run in self.runs]) if self.runs else math.inf
        return math.inf if math.isnan(score) else score

    def finish(self) -> float:
        """All seeds are done: note it, and give the score."""
        scores = [run[self.measure] for run in self.runs]
        self.status, self.note = "done" if math.isfinite(self.score) else "diverged", ""
        if any(map(math.isnan, scores)):
            self.status, self.note = (
                "done",
                "no bits per byte: the tokenizer loses text",
            )
        return self.score


def row(point: Point) -> Values:
    """A point's row of results.csv: settings, means and spreads over its seeds; "" = unknown."""
    figures: Values = {}
    for name, digits in MEAN.items():
        xs = [run.get(name, math.nan) for run in point.runs]
        for key, x in ((name, mean(xs)), (f"{name}_sd", sd(xs))):
            figures[key] = "" if math.isnan(x) else round(x, digits)
        if name == "val_loss":
            figures["val_ppl"] = (
                round(perplexity(mean([run["val_loss"] for run in point.runs])), 2) if xs else ""
            )
    first = point.runs[0] if point.runs else {}
    figures |= {name: first.get(name, "") for name in ("tokens", "params")}
    done = {"seeds": len(point.runs), "status": point.status, "note": point.note}
    return {**point.values, **figures, **done}


def ranked(points: Sequence[Point]) -> list[Point]:
    """Those that are done first, by their score."""
    return sorted(points, key=lambda p: (p.status not in DONE, p.score))


def write_csv(path: Path, points: Sequence[Point]) -> None:
    """Write results.csv of all points that were begun, whole or not at all."""
    rows = [row(p) for p in ranked(points) if p.status != "waiting"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, open(part, "w", encoding="utf-8", newline="") as f:
        table = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def aligned(lines: Sequence[Sequence[str]], left: int) -> str:
    """Rows of words as columns; column `left` is set to the left, -1 is the last."""
    columns = []
    for i, column in enumerate(zip(*lines, strict=True)):
        width = max(map(len, column))
        to_left = i == left % len(lines[0])
        columns.append([w.ljust(width) if to_left else w.rjust(width) for w in column])
    return "\n".join("  ".join(words).rstrip() for words in zip(*columns, strict=True))


def table(points: Sequence[Point], shown: Sequence[str], most: int = 10**6) -> str:
    """Points as text, best first, at most so many: columns of `row`, and how each went.

    A column that no point has a figure for is left out.
    """
    rows = [row(p) for p in ranked(points)]
    shown = [k for k in shown if k == "val_loss" or any(r[k] != "" for r in rows)]
    lines = [[*shown, "status"]]
    lines += [[*(str(r[k]) for k in shown), f"{r['status']} {r['note']}"] for r in rows[:most]]
    left = f"\n... and {len(rows) - most} more" if len(rows) > most else ""
    return aligned(lines, left=-1) + left


class Board:
    """Shows points while they train: a table that changes on a terminal, else a line per run."""

    def __init__(
        self, path: Path, varied: Sequence[str], now: Callable[[], float] = time.monotonic
    ):
        self.path, self.varied, self.now = path, varied, now
        self.points: list[Point] = []
        self.lock, self.height, self.due = threading.Lock(), 0, now()
        self.live = sys.stdout.isatty()

    def draw(self) -> None:
        """Draw the table over the last one, a few times a second at most."""
        with self.lock:
            if self.live and self.now() >= self.due:
                columns, rows = shutil.get_terminal_size()
                lines = table(
                    self.points, [*self.varied, "val_loss"], max(1, rows - 4)
                ).splitlines()
                back = f"\x1b[{self.height}F" if self.height else ""
                print(back + "\x1b[J" + "\n".join(x[: columns - 1] for x in lines), flush=True)
                self.height, self.due = len(lines), self.now() + 0.3

    def note(self, name: str, said: str) -> None:
        """Something has ended: write results.csv, and say what."""
        with self.lock:
            write_csv(self.path / "results.csv", self.points)
            if not self.live:
                ended = sum(p.status not in ("waiting", "running") for p in self.points)
                print(f"[{ended}/{len(self.points)}] {name}  {said}", flush=True)
        self.draw()


def best_of(points: Sequence[Point]) -> Point:
    """The point with the lowest score. Raises ValueError if none has one."""
    best = min(points, key=lambda p: (p.status not in DONE, p.score))
    if best.status not in DONE:
        notes = {p.note for p in points if p.note}
        raise ValueError(f"no point was trained to its end: {'; '.join(sorted(notes))[:300]}")
    return best


def remarks(points: Sequence[Point]) -> list[str]:
    """What to know before the figures are believed."""
    runs = [run for p in points for run in p.runs]
    kinds = sorted({run["dtype"] for run in runs})
    seeds = max((len(p.runs) for p in points), default=0)
    said: dict[str, Any] = {
        f"note: runs differ in precision ({', '.join(kinds)}); give --dtype": len(kinds) > 1,
        "note: one seed each, so nobody knows the spread; add --seed 1 2 3": seeds < 2,
    }
    return [text for text, holds in said.items() if holds]
