"""The trainings of a plan: each once, found again if it is there; and what is kept of them."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from tok.files import replacing
from utils.scaling.fit import Array, isoflop_minimum
from utils.scaling.plan import Plan, Size, settings
from utils.sweep.workers import Pool


@dataclass(frozen=True)
class Run:
    """A training that is done: its plan, its validation loss (nats), its seconds."""

    plan: Plan
    loss: float
    seconds: float


def train(pool: Pool, plan: Plan, data: str, root: Path) -> Run:
    """Train a plan, or read what it gave. Raises ValueError if it diverged."""
    found = pool.train(settings(plan, data, root))
    if not math.isfinite(found["val_loss"]):
        raise ValueError(f"{plan.name} diverged; lower the learning rate in utils/scaling/plan.py")
    return Run(plan, found["val_loss"], found["seconds"])


def train_all(
    pool: Pool, plans: Iterable[Plan], data: str, root: Path, say: Callable[[Run], object]
) -> list[Run]:
    """Train all plans, those that are done are read; `say` hears of each."""
    runs = []
    for plan in plans:
        runs.append(train(pool, plan, data, root))
        say(runs[-1])
    return runs


def arrays(runs: Sequence[Run], embeddings: bool = True) -> tuple[Array, Array, Array]:
    """(N, D, L) of runs; N without embeddings and head if so asked."""
    N = [run.plan.N if embeddings else run.plan.matrices for run in runs]
    return (
        np.array(N, float),
        np.array([run.plan.D for run in runs], float),
        np.array([run.loss for run in runs]),
    )


def curve(runs: Sequence[Run], budget: float) -> list[tuple[Plan, float]]:
    """(plan, mean loss over seeds) of a budget, from the smallest size up."""
    sizes: dict[Size, list[Run]] = {}
    for run in runs:
        if run.plan.budget == budget:
            sizes.setdefault(run.plan.size, []).append(run)
    groups = sorted(sizes.values(), key=lambda group: group[0].plan.N)
    return [(group[0].plan, mean(run.loss for run in group)) for group in groups]


def optimum(runs: Sequence[Run], budget: float) -> tuple[float, float, float]:
    """(N, D, L) at the lowest loss of a budget, by parabolas over log N and log D."""
    points = curve(runs, budget)
    losses = [loss for _, loss in points]
    N, L = isoflop_minimum([plan.N for plan, _ in points], losses)
    return N, isoflop_minimum([plan.D for plan, _ in points], losses)[0], L


def write(path: Path, values: dict[str, object]) -> None:
    """Write JSON, whole or not at all."""
    with replacing(path) as part:
        Path(part).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
