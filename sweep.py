"""Try settings side by side, each with several seeds, and rank them by validation loss.

    python sweep.py --lr 1e-3 3e-3 --n_layer 2 4 --seed 1 2 3       # a grid: every combination
    python sweep.py --random 20 --lr 1e-3..3e-2 --dropout 0..0.3    # 20 points at random
    python sweep.py --optuna 30 --lr 1e-3..3e-2 --d_model 64 128    # a study that learns
    python sweep.py --lr 1e-3 3e-3 --batch_size 8 32 --tokens 1e6   # as many tokens for each
    python sweep.py --lr 1e-3 3e-3 --n_layer 2 4 --minutes 2        # as much time for each

Every setting of train.py is a flag here and takes one value, several, or LOW..HIGH. Started
again, a sweep goes on where it stopped. runs/sweep-NAME gets results.csv, best first, results.png,
and the runs.
"""

from argparse import SUPPRESS, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import train
from tok.cli import Parser, run
from utils.config import FIELDS
from utils.flags import DEFAULT
from utils.sweep.loop import train_all
from utils.sweep.space import Sweep, choices_of, with_seeds
from utils.sweep.study import SAMPLERS, open_study, search
from utils.sweep.table import SHOWN, Board, Point, best_of, remarks, table, write_csv
from utils.sweep.workers import Pool


def add_flags(p: Parser) -> None:
    """The flags that are no settings."""
    add: Any = p.add_argument
    add("--config", default=str(DEFAULT), help="the settings to start from")
    add("--name", help="the sweep's name (default: the config's)")
    add("--random", type=int, default=0, metavar="N", help="draw N points instead of all")
    add(
        "--optuna",
        type=int,
        default=0,
        metavar="N",
        help="let Optuna search, to N trials in all",
    )
    add("--sampler", choices=SAMPLERS, default="tpe", help="how Optuna draws (default tpe)")
    add("--storage", default="", help="of the study: a file, or a database's URL, for several "
        "processes or machines (default: study.journal beside the results)")  # fmt: skip
    add("--no-prune", action="store_true", help="train points of a study to their end, though "
        "they are worse than the median at the same time")  # fmt: skip
    add("--tokens", type=float, default=0.0, metavar="N", help="train each run on so many tokens")
    add("--jobs", type=int, default=1, metavar="N", help="train N runs at once, each on its share "
        "of the cores; 0 = in this process, to debug (default 1)")  # fmt: skip


def parse(argv: Sequence[str] | None) -> tuple[Namespace, Sweep]:
    """Read the flags: what is tried, and how."""
    p = Parser(prog="sweep.py", usage="sweep.py [--SETTING VALUE ...]", description=__doc__)
    add_flags(p)
    for name, field in FIELDS.items():
        if name != "run":
            p.add_argument(f"--{name}", nargs="+", default=SUPPRESS, help=field.metadata["help"])
    a = p.parse_args(argv)
    space = {k: choices_of(k, v) for k, v in vars(a).items() if k in FIELDS}
    path = Path("runs") / f"sweep-{a.name or Path(a.config).stem}"
    sweep = with_seeds(Sweep(a.config, path, space, tokens=int(a.tokens)))
    check(a, sweep)
    return a, sweep


def check(a: Namespace, sweep: Sweep) -> None:
    """Raise ValueError for flags that do not go together, and for what cannot be trained."""
    if not sweep.varied and len(sweep.seeds) < 2:
        raise ValueError("nothing to compare: give some setting two values, e.g. --lr 1e-3 3e-3")
    if a.random and a.optuna:
        raise ValueError("--random and --optuna exclude each other; --optuna has --sampler random")
    if a.storage and not a.optuna:
        raise ValueError("--storage is a study's; add --optuna 20")
    if sweep.tokens and sweep.space.keys() & {"steps", "minutes"}:
        raise ValueError("--tokens says how long to train; leave out --steps and --minutes")
    for name in ("random", "optuna", "jobs", "tokens"):
        if getattr(a, name) < 0:
            raise ValueError(f"{name}={getattr(a, name):g} must not be negative")
    if not (a.random or a.optuna):  # an impossible one is refused before hours of others
        for values in sweep.grid():
            sweep.settings(values, None)


def finish(sweep: Sweep, points: Sequence[Point]) -> None:
    """Write and print what came of it: the table, the picture, the winner's command."""
    from utils.sweep.picture import LABEL, draw

    best = best_of(points)
    write_csv(sweep.path / "results.csv", points)
    names = ", ".join(f"{k}={best.values[k]}" for k in sweep.varied) or "the only point"
    picture = draw(sweep, points)
    print("\n" + table(points, [*sweep.varied, *SHOWN]))
    print("".join(f"\n{text}" for text in remarks(points)))
    print(f"best by {LABEL[sweep.measure]}: {names}\n  {sweep.command(best.values)}")
    print(f"{sweep.path / 'results.csv'}  {picture}")


def main(argv: Sequence[str] | None = None) -> None:
    """Train the points, write results.csv after every run, print the table."""
    a, sweep = parse(argv)
    board = Board(sweep.path, sweep.varied)
    study = open_study(sweep, a.storage, a.sampler, not a.no_prune) if a.optuna else None
    with Pool(train.run, a.jobs) as pool:
        if study:
            search(study, sweep, pool, board, a.optuna)
        else:
            points = sweep.draw(a.random) if a.random else sweep.grid()
            train_all(sweep, pool, board, [Point(v, measure=sweep.measure) for v in points])
    finish(sweep, board.points)


if __name__ == "__main__":
    run(main)
