"""Change one thing at a time, with seeds, on two texts, by equal tokens and by equal time.

    python -m utils.ablate                                    # all; half an hour on one core
    python -m utils.ablate --only positions norm --seeds 5    # some of it, and surer
    python -m utils.ablate --texts my.txt --steps 600         # on your text; longer
    python -m utils.ablate --tune 0.5 2 --seeds 1             # would another learning rate do?

The baseline is configs/ablation.yaml (or --config); every setting of train.py is a flag that
changes it. Started again, it goes on where it stopped. runs/ablate gets results.csv, a row for each
run; table.md, with means, spreads and differences; picture.png; and the runs, without weights.
"""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from tok.cli import Parser, run
from tok.files import replacing
from utils.ablate.loop import Notes, train_all
from utils.ablate.pace import paces
from utils.ablate.plan import TIME, TOKENS, Plan, texts_of
from utils.ablate.results import Results
from utils.ablate.tuning import tune
from utils.ablate.variants import ABLATIONS, chosen
from utils.config import Settings, flat
from utils.flags import add_settings, settings_of
from utils.sweep.workers import Pool

CONFIG = str(Path(__file__).parents[2] / "configs" / "ablation.yaml")
TEXTS = ["data/tiny.txt", "shakespeare"]


def parser() -> Parser:
    """The flags that are no settings, and those that are."""
    p = Parser(prog="python -m utils.ablate", usage="%(prog)s [--FLAG VALUE ...]",
               description=__doc__)  # fmt: skip
    names = ", ".join(a.name for a in ABLATIONS)
    p.add_argument("--only", nargs="+", default=[], metavar="ABLATION", help=f"some of {names}")
    p.add_argument("--texts", nargs="+", default=TEXTS, metavar="TEXT", help="files, or texts that "
                   "data.prepare knows by name (default: data/tiny.txt shakespeare)")  # fmt: skip
    p.add_argument("--seeds", type=int, default=3, metavar="N", help="train each so often (3)")
    p.add_argument("--equal", nargs="+", default=[TOKENS, TIME], choices=[TOKENS, TIME],
                   help="what variants have as much of as the baseline (both)")  # fmt: skip
    p.add_argument("--tune", nargs="+", type=float, metavar="X", help="instead, train each at X "
                   "times its learning rate as well, and say which does best")  # fmt: skip
    p.add_argument("--jobs", type=int, default=1, metavar="N", help="train N runs at once, each on "
                   "its share of the cores; 0 = in this process, to debug (1)")  # fmt: skip
    add_settings(p)
    return p


def baseline_of(a: Namespace) -> Settings:
    """The settings that all is compared with; its `run` is the directory of the whole."""
    own = {"config": a.config or CONFIG, "run": getattr(a, "run", "ablate")}
    settings = settings_of(Namespace(**{**vars(a), **own}))
    path = Path("runs", settings.train.run) if "/" not in own["run"] else Path(own["run"])
    return replace(settings, train=replace(settings.train, run=str(path)))


def plan_of(a: Namespace) -> Plan:
    """What is asked for, without the steps' times. Raises ValueError for what cannot be trained."""
    if a.seeds < 1 or a.jobs < 0:
        raise ValueError(f"seeds={a.seeds} must be 1 or more, jobs={a.jobs} 0 or more")
    baseline = baseline_of(a)
    if minutes := baseline.train.minutes:
        raise ValueError(f"minutes={minutes:g}: runs are as long as --steps says; leave it out")
    variants = chosen(a.only, flat(baseline))
    plan = Plan(baseline, texts_of(a.texts), variants, range(1, a.seeds + 1), {})
    list(plan.runs([TOKENS]))  # an impossible one is refused before an hour of others
    return plan


def finish(plan: Plan, notes: Notes) -> None:
    """Write and print what came of it: tables, the picture, what crashed."""
    from utils.ablate.picture import draw

    results = Results(plan, notes.rows)
    tables = "\n\n".join(f"{text}\n\n{results.table(text)}" for text in plan.texts)
    with replacing(plan.path / "table.md") as part:
        Path(part).write_text(tables + "\n", encoding="utf-8")
    picture = plan.path / "picture.png"
    draw(results, str(picture))
    print(f"\n{tables}\n\n{results.note()}")
    for name, why in notes.crashed.items():
        print(f"crashed: {name}: {why}")
    print(f"{plan.path / 'results.csv'}  {plan.path / 'table.md'}  {picture}")


def main(argv: Sequence[str] | None = None) -> None:
    """Time the steps, train, compare."""
    a = parser().parse_args(argv)
    plan = plan_of(a)
    train = import_module("train")  # by name, as utils.chaos calls it: scripts lie above this room
    with Pool(train.run, a.jobs) as pool:
        if a.tune:
            print(tune(pool, plan, a.tune))
            return
        plan = replace(plan, ratios=paces(plan))
        notes = train_all(pool, plan.runs(a.equal), plan.path / "results.csv")
    finish(plan, notes)


if __name__ == "__main__":
    run(main)
