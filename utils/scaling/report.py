"""What is said of the trainings: a line each, the laws with their errors, results.json."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from utils.scaling.fit import Array, Fit, line
from utils.scaling.runs import Run, optimum, write

HEAD = "     FLOPs  layers  width  seed          N           D  D / N    loss  seconds"
NAMES = ("E", "A", "B", "alpha", "beta")


def say(run: Run) -> None:
    """Print a training's row."""
    p = run.plan
    shape = f"{p.budget:10.0e}  {p.size[0]:6}  {p.size[1]:5}  {p.seed:4}"
    counts = f"{p.N:9,}  {p.D:10,}  {p.D / p.N:5.1f}"
    print(f"{shape}  {counts}  {run.loss:.4f}  {run.seconds:7.1f}", flush=True)


def stated(values: dict[str, Any]) -> str:
    """The prediction, as it was written."""
    lines = [f"\nprediction, stated {values['stated']}, of {values['run']}:"]
    for name in ("chinchilla", "kaplan"):
        law = values[name]
        lines.append(f"  {name:10}  {law['loss']:.4f}  ({law['low']:.4f} to {law['high']:.4f})")
    return "\n".join(lines)


def outcome(values: dict[str, Any], found: Run) -> str:
    """What the run gave, beside what was expected."""
    law = values["chinchilla"]
    inside = "inside" if law["low"] <= found.loss <= law["high"] else "outside"
    off = 100 * (found.loss / law["loss"] - 1)
    how = f"{off:+.2f} % of chinchilla's figure, {inside} its interval"
    return f"found         {found.loss:.4f}, {how}, in {found.seconds:.0f} s"


def readable(theta: Array) -> Array:
    """(log E, log A, log B, alpha, beta) -> (E, A, B, alpha, beta), for many (K,5)."""
    return np.concatenate((np.exp(theta[:, :3]), theta[:, 3:]), 1)


def column(i: int, theta: Array) -> Array:
    """The figure NAMES[i] of many parameters (K,5)."""
    return readable(theta)[:, i]


def of_law(law: Fit) -> dict[str, Any]:
    """The figures of chinchilla's law, [value, 5 %, 95 %]: N_opt is as C^a, a = beta / (alpha +
    beta); and the root mean square of the residuals of log L.
    """
    found: dict[str, Any] = {name: law.spread(partial(column, i)) for i, name in enumerate(NAMES)}
    found["a"] = law.spread(lambda t: t[:, 4] / (t[:, 3] + t[:, 4]))
    return found | {"rms": float(np.sqrt((law.residuals**2).mean()))}


def of_minima(runs: Sequence[Run]) -> dict[str, Any]:
    """Approach 2: the minimum of each budget, and the exponents [value, standard error]."""
    budgets = sorted({run.plan.budget for run in runs})
    minima: dict[float, tuple[float, float, float]] = {}
    without = {}
    for C in budgets:
        try:
            minima[C] = optimum(runs, C)
        except ValueError as e:  # said, and left out of the line
            without[f"{C:g}"] = str(e)
    found: dict[str, Any] = {"minima": {f"{C:g}": m for C, m in minima.items()}}
    found["without"] = without
    if len(minima) > 1:
        x, best = np.log(np.array(list(minima))), np.log(np.array(list(minima.values())))
        found |= {"a": line(x, best[:, 0])[:2], "b": line(x, best[:, 1])[:2]}
    return found


def finish(
    out: Path,
    runs: Sequence[Run],
    laws: dict[str, Fit],
    bare: Fit,
    stated: dict[str, Any],
    found: Run,
) -> None:
    """Write results.json and the picture, print the figures."""
    from utils.scaling.picture import draw

    k = laws["kaplan"]
    results: dict[str, Any] = {
        "approach 2": of_minima(runs),
        "approach 3": of_law(laws["chinchilla"]),
        "approach 3, without embeddings": of_law(bare),
        "kaplan": {
            "theta": k.theta.tolist(),
            "alpha_N": k.spread(lambda t: t[:, 2]),
            "alpha_D": k.spread(lambda t: t[:, 3]),
            "rms": float(np.sqrt((k.residuals**2).mean())),
        },
        "prediction": stated,
        "found": found.loss,
        "runs": [
            {"C": r.plan.budget, "N": r.plan.N, "matrices": r.plan.matrices, "D": r.plan.D}
            | {"seed": r.plan.seed, "loss": r.loss, "seconds": r.seconds}
            for r in runs
        ],
    }
    write(out / "results.json", results)
    draw(out / "scaling.png", runs, laws["chinchilla"], stated, found)
    for name in ("approach 2", "approach 3", "approach 3, without embeddings", "kaplan"):
        print(f"\n{name}")
        for key, value in results[name].items():
            print(f"  {key:8} {rounded(value)}")
    print(f"\n{out / 'results.json'}  {out / 'scaling.png'}")


def rounded(value: Any) -> str:
    """Figures to four digits, whatever holds them."""
    if isinstance(value, dict):
        return "; ".join(f"{k}: {rounded(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "  ".join(map(rounded, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
