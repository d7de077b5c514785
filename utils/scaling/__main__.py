"""A scaling law on a laptop: small trainings, a fit with its error, a prediction put to the test.

python -m utils.scaling                      # Tiny Shakespeare by characters; under an hour
python -m utils.scaling --from my.txt --out runs/scaling-my

It trains sizes x compute budgets, finds the best size of each budget, fits L(N, D) = E +
A / N^alpha + B / D^beta (Hoffmann et al. 2022), writes what it expects of a larger training to
prediction.json, and only then trains that one. Started again, it goes on where it stopped.
"""

import json
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tok import END_OF_TEXT
from tok.cli import Parser, run
from utils.scaling.plan import BUDGETS, HELD_OUT, SIZES, Plan, plans, with_seeds

SHARE = 0.9  # of intervals


def vocabulary(data: str) -> int:
    """How many characters a text has; it is prepared on the way."""
    from data.mixture import open_mixture

    how: dict[str, Any] = {"tokenizer": "char", "vocab": 0, "doc_sep": END_OF_TEXT, "mixture": ""}
    return int(open_mixture(data=data, **how).combined().tokenizer.vocab_size)


def held_out(fit: Any, budget: float, V: int) -> Plan:
    """The size that the law thinks best for a larger budget, of ours and of some larger ones."""
    larger = ((4, 96), (4, 128))
    every = [Plan(budget, size, 1, V) for size in (*SIZES, *larger)]
    return min(every, key=lambda plan: fit.loss(plan.N, plan.D))


def state(path: Path, plan: Plan, laws: dict[str, Any], runs: int) -> dict[str, Any]:
    """Write what is expected of a run that nobody has trained; one stated before stays as it is.

    Raises ValueError if that was of another run, or if this one has begun.
    """
    from utils.scaling.runs import write

    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known["run"] != plan.name:
            raise ValueError(f"{path} is of {known['run']}, not {plan.name}; use another --out")
        return known
    if (path.parent / plan.name).exists():
        raise ValueError(f"{path.parent / plan.name} was trained before a prediction; remove it")
    stated = {
        "stated": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "run": plan.name,
        **{"C": plan.budget, "N": plan.N, "D": plan.D, "fitted to": runs, "interval": SHARE},
    }
    for name, law in laws.items():
        low, high = law.interval(plan.N, plan.D, SHARE)
        stated[name] = {"loss": law.loss(plan.N, plan.D), "low": low, "high": high}
    write(path, stated)
    return stated


def main(argv: Sequence[str] | None = None) -> None:
    """Train, fit, predict, test the prediction, draw."""
    p = Parser(prog="python -m utils.scaling", description=__doc__)
    add: Any = p.add_argument
    add("--from", dest="text", help="a text file (default: Tiny Shakespeare, downloaded once)")
    add("--out", default="runs/scaling", help="directory of the runs (default runs/scaling)")
    add("--budgets", type=float, nargs="+", default=list(BUDGETS), help="FLOPs of a training")
    add("--held-out", type=float, default=HELD_OUT, help="FLOPs of the one that is predicted")
    add("--seeds", type=int, default=3, help="trainings of each size at the lowest budget")
    a = p.parse_args(argv)
    if len(set(a.budgets)) < 2 or a.held_out <= max(a.budgets):
        raise ValueError("give two --budgets or more, and a --held-out above them")

    from data.download import fetch
    from utils.scaling import report
    from utils.scaling.fit import chinchilla, fit, kaplan
    from utils.scaling.runs import arrays, train, train_all
    from utils.sweep.workers import Pool

    data, out = a.text or str(fetch("shakespeare")), Path(a.out)
    V = vocabulary(data)
    # this command stands above the scripts, as sweep.py does
    with Pool(import_module("train").run, jobs=1) as pool:
        print(report.HEAD, flush=True)
        planned = list(with_seeds(plans(sorted(a.budgets), SIZES, V), a.seeds))
        runs = train_all(pool, planned, data, out, report.say)
        laws = {f.__name__: fit(f, *arrays(runs)) for f in (chinchilla, kaplan)}
        bare = fit(chinchilla, *arrays(runs, embeddings=False))
        plan = held_out(laws["chinchilla"], a.held_out, V)
        stated = state(out / "prediction.json", plan, laws, len(runs))
        print(report.stated(stated), flush=True)
        found = train(pool, plan, data, out)
    print(report.outcome(stated, found))
    report.finish(out, runs, laws, bare, stated, found)


if __name__ == "__main__":
    run(main)
