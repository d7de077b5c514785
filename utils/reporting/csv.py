"""metrics.csv: a row each `log_every` steps and one each evaluation, for machines."""

import csv
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tok.files import replacing
from utils.reporting.events import Evaluation, Event, Interval
from utils.runs import lock

COLUMNS = ["step", "tokens", "seconds", "lr", "train_loss", "grad_norm", "tokens_per_s", "spikes"]
COLUMNS += ["val_loss", "val_ppl", "val_bits_per_byte"]  # of evaluations, which have their own rows
# the last is empty where a score has no bytes, as that of masked tokens


class Table:
    """A CSV that a run writes from `step` on: earlier rows stay, later and torn ones go."""

    def __init__(self, path: Path, columns: Sequence[str], step: int):
        rows = []
        if step and path.exists():
            with open(path, encoding="utf-8", newline="") as f:
                complete = [r for r in csv.DictReader(f) if r.get(columns[-1]) is not None]
            rows = [r for r in complete if int(r["step"]) <= step]
        with replacing(path) as part, open(part, "w", encoding="utf-8", newline="") as f:
            table = csv.DictWriter(f, columns, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        self.file = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115
        self.writer = csv.DictWriter(self.file, columns, lineterminator="\n")

    def write(self, *rows: dict[str, Any]) -> None:
        """Append rows, to be seen at once."""
        self.writer.writerows(rows)
        self.file.flush()

    def close(self) -> None:
        """Close the file, which unlocks it."""
        self.file.close()


class MetricsCSV:
    """Writes metrics.csv in a run's directory, from `step` on.

    A mixture's sources have a column each, and what else a score tells, as accuracy. The file is
    locked while it is open.
    """

    def __init__(
        self,
        run: Path,
        step: int = 0,
        sources: Collection[str] = (),
        figures: Collection[str] = (),
    ):
        own = [f"val_loss_{name}" for name in sources] if len(sources) > 1 else []
        own += [f"val_{name}" for name in figures]
        self.table = Table(run / "metrics.csv", COLUMNS + own, step)
        lock(self.table.file)

    def __call__(self, event: Event) -> None:
        """Write the row of an interval or an evaluation."""
        if isinstance(event, Interval):
            self.table.write(asdict(event))
        if isinstance(event, Evaluation):
            score = event.score
            row = {"step": event.step, "tokens": event.tokens, "seconds": event.seconds}
            row |= {"val_loss": score.loss, "val_ppl": score.ppl}
            row |= {f"val_{name}": value for name, value in score.figures.items()}
            row |= {f"val_loss_{name}": own.loss for name, own in event.sources.items()}
            self.table.write(row)

    def close(self) -> None:
        """Close the file, which unlocks it."""
        self.table.close()
