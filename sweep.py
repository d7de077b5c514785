"""Try combinations of settings, each with several seeds, and rank them by validation loss.

    python sweep.py --lr 1e-3 3e-3 --n_layer 2 4
    python sweep.py --config configs/shakespeare_char.yaml --dropout 0 0.1 --seed 1 2 3
    python sweep.py --name wide --d_model 64 128 --steps 300

Every setting of train.py is a flag here and takes one value or several. Started again, a sweep
goes on where it stopped. Results: runs/sweep-NAME/results.csv, best first.
"""

import csv
import itertools
import json
import math
import statistics
from argparse import SUPPRESS, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import train
from tok.cli import Parser, run
from tok.files import replacing
from utils.config import FIELDS, Settings, coerce, flat, read_yaml, recorded_settings
from utils.flags import DEFAULT, settings_of
from utils.training.score import perplexity

Values = dict[str, Any]


def parse(argv: Sequence[str] | None) -> tuple[str, Path, dict[str, list[Any]]]:
    """Read the flags: (config, the sweep's directory, {setting: [values]})."""
    p = Parser(prog="sweep.py", usage="sweep.py [--SETTING VALUE ...]", description=__doc__)
    p.add_argument("--config", default=str(DEFAULT), help="the settings to start from")
    p.add_argument("--name", help="the sweep's name (default: the config's)")
    for name, field in FIELDS.items():
        if name != "run":
            p.add_argument(f"--{name}", nargs="+", default=SUPPRESS, help=field.metadata["help"])
    a = p.parse_args(argv)
    grid = {k: [coerce(k, v) for v in vs] for k, vs in vars(a).items() if k in FIELDS}
    if not any(len(values) > 1 for values in grid.values()):
        raise ValueError("nothing to compare: give some setting two values, e.g. --lr 1e-3 3e-3")
    return a.config, Path("runs") / f"sweep-{a.name or Path(a.config).stem}", grid


def settings_for(config: str, path: Path, values: Values) -> Settings:
    """The settings of one combination; ValueError if they are impossible."""
    return settings_of(Namespace(config=config, **{"sample": 0, **values, "run": str(path)}))


def train_one(settings: Settings, path: Path) -> Values:
    """Train one combination, or go on with it, unless it is done; its summary.

    A run that diverged is done, too: its loss is inf.
    """
    file = path / "summary.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if not found or not same(found["settings"], settings):
        found = train.run(settings, resume=begun(path, settings))
        if found["stopped_by"].startswith("SIG"):
            raise KeyboardInterrupt
    return {**found, "best_val_loss": math.inf} if found["stopped_by"] == "diverged" else found


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


def rank(results: list[tuple[Values, Values]]) -> list[Values]:
    """One row for each combination in [(values, summary)], over its seeds, best loss first."""
    groups: dict[tuple[Any, ...], list[Values]] = {}
    for values, summary in results:
        combination = tuple((k, v) for k, v in values.items() if k != "seed")
        groups.setdefault(combination, []).append(summary)
    rows = []
    for combination, runs in groups.items():
        losses = [r["best_val_loss"] for r in runs]
        mean = statistics.fmean(losses)
        row = {
            **dict(combination),
            "val_loss": round(mean, 4),
            "std": (
                round(statistics.stdev(losses), 4) if len(losses) > 1 and mean < math.inf else ""
            ),
            "val_ppl": round(perplexity(mean), 2),
            "seeds": len(runs),
            "params": runs[0]["params"],
            "seconds": round(statistics.fmean(r["seconds"] for r in runs), 1),
        }
        rows.append(row)
    return sorted(rows, key=lambda row: row["val_loss"])


def write_csv(path: Path, rows: list[Values]) -> None:
    """Write the rows as CSV, whole or not at all."""
    with replacing(path) as part, open(part, "w", encoding="utf-8", newline="") as f:
        table = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Train the grid, write results.csv after every run, print the table."""
    config, path, grid = parse(argv)
    combinations = [dict(zip(grid, v, strict=True)) for v in itertools.product(*grid.values())]
    runs = {}
    for values in combinations:  # an impossible one is refused before hours of others
        name = ",".join(f"{k}={v}" for k, v in values.items() if len(grid[k]) > 1)
        own = path / name.replace("/", "_")
        runs[name] = values, settings_for(config, own, values), own
    results = []
    for i, (name, (values, settings, own)) in enumerate(runs.items(), 1):
        print(f"\n[{i}/{len(runs)}] {name}", flush=True)
        results.append((values, train_one(settings, own)))
        rows = rank(results)
        write_csv(path / "results.csv", rows)
    print("\n" + "  ".join(f"{name:>10}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value!s:>10}" for value in row.values()))
    best = ", ".join(f"{k}={v}" for k, v in rows[0].items() if k in FIELDS)
    print(f"\nbest by validation loss: {best}\n{path / 'results.csv'}")


if __name__ == "__main__":
    run(main)
