"""Trains the runs of a plan, several at once, and keeps their figures; goes on where it stopped."""

import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from utils.ablate.plan import Run
from utils.ablate.results import Row, row_of, write_csv
from utils.sweep.loop import in_threads
from utils.sweep.workers import Crashed, Pool


class Notes:
    """Rows of runs that have ended, and what went wrong; results.csv follows each of them."""

    def __init__(self, file: Path, total: int):
        self.file, self.total = file, total
        self.rows: list[Row] = []
        self.crashed: dict[str, str] = {}
        self.lock = threading.Lock()  # runs end in threads, and two must not write at once

    def say(self, run: Run, said: str) -> None:
        """One line on the screen."""
        ended = len(self.rows) + len(self.crashed)
        print(f"[{ended}/{self.total}] {run.name}: {said}", flush=True)

    def add(self, run: Run, row: Row) -> None:
        """A run is done."""
        with self.lock:
            self.rows.append(row)
            write_csv(self.file, self.rows)
            self.say(run, f"{row['bits_per_byte']:.4f} bits per byte, {row['seconds']:.1f} s")

    def crash(self, run: Run, why: str) -> None:
        """A run has ended by an error."""
        with self.lock:
            self.crashed[run.name] = why
            self.say(run, f"crashed: {why}")


def train_one(pool: Pool, notes: Notes, run: Run) -> None:
    """Train a run, unless it is done; if it crashes, note why. Its weights are not kept."""
    try:
        figures = pool.train(run.settings)
    except Crashed as e:
        notes.crash(run, str(e))
        return
    for checkpoint in Path(run.settings.train.run).glob("*.pt"):
        checkpoint.unlink()
    notes.add(run, row_of(run, figures))


def train_all(pool: Pool, runs: Iterable[Run], file: Path) -> Notes:
    """Train all runs, as many at once as the pool has workers; results.csv is at `file`."""
    runs = list(runs)
    notes = Notes(file, len(runs))
    in_threads(pool, [partial(train_one, pool, notes, run) for run in runs])
    return notes
