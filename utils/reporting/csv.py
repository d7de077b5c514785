"""metrics.csv: a row each `log_every` steps and one each evaluation, for machines."""

import csv
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from tok.files import replacing
from utils.reporting.events import Evaluation, Event, Interval
from utils.runs import lock

COLUMNS = ["step", "tokens", "seconds", "lr", "train_loss", "grad_norm", "tokens_per_s", "spikes"]
COLUMNS += ["val_loss", "val_ppl", "val_bits_per_byte"]  # of evaluations, which have their own rows


class MetricsCSV:
    """Writes metrics.csv in a run's directory, from `step` on: earlier rows stay, later ones go.

    A mixture's sources have a column each. The file is locked while it is open.
    """

    def __init__(self, run: Path, step: int = 0, sources: Collection[str] = ()):
        path = run / "metrics.csv"
        own = [f"val_loss_{name}" for name in sources] if len(sources) > 1 else []
        columns, rows = COLUMNS + own, []
        if step and path.exists():
            with open(path, encoding="utf-8", newline="") as f:
                complete = [r for r in csv.DictReader(f) if r[columns[-1]] is not None]
            rows = [r for r in complete if int(r["step"]) <= step]
        with replacing(path) as part, open(part, "w", encoding="utf-8", newline="") as f:
            table = csv.DictWriter(f, columns, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        self.file = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115
        lock(self.file)
        self.table = csv.DictWriter(self.file, columns, lineterminator="\n")

    def __call__(self, event: Event) -> None:
        """Write the row of an interval or an evaluation."""
        if isinstance(event, Interval):
            self.table.writerow(asdict(event))
            self.file.flush()
        if isinstance(event, Evaluation):
            score = event.score
            row = {"step": event.step, "tokens": event.tokens, "seconds": event.seconds}
            row |= {"val_loss": score.loss, "val_ppl": score.ppl}
            row |= {"val_bits_per_byte": score.bits_per_byte}
            row |= {f"val_loss_{name}": own.loss for name, own in event.sources.items()}
            self.table.writerow(row)
            self.file.flush()

    def close(self) -> None:
        """Close the file, which unlocks it."""
        self.file.close()
