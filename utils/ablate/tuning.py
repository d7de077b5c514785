"""Whether a variant wants another learning rate: each at some multiples of its own."""

from collections.abc import Sequence

from utils.ablate.loop import train_all
from utils.ablate.plan import TOKENS, Plan, Run
from utils.ablate.results import Row
from utils.spread import mean
from utils.sweep.table import aligned
from utils.sweep.workers import Pool


def runs_of(plan: Plan, factors: Sequence[float]) -> list[Run]:
    """Every variant at every factor, on each text with each seed."""
    return [
        plan.run(variant, text, seed, TOKENS, lr)
        for text in plan.texts
        for seed in plan.seeds
        for lr in factors
        for variant in plan.variants
    ]


def tune(pool: Pool, plan: Plan, factors: Sequence[float]) -> str:
    """Train at factors times each learning rate, 1 included, and give a table for each text.

    Raises ValueError for a factor that is not above 0.
    """
    if min(factors) <= 0:
        raise ValueError(f"tune={min(factors):g} must be above 0: a factor of the learning rate")
    factors = sorted({1.0, *factors})
    rows = train_all(pool, runs_of(plan, factors), plan.path / "tune.csv").rows
    return "\n\n".join(f"{text}, bits per byte\n{table(plan, rows, text)}" for text in plan.texts)


def table(plan: Plan, rows: Sequence[Row], text: str) -> str:
    """A row for each variant, a column for each learning rate; the best has a star."""
    lines = []
    for variant in plan.variants:
        own = [r for r in rows if (r["text"], r["variant"]) == (text, variant.name)]
        rates = sorted({r["lr"] for r in own})
        bits = [mean([r["bits_per_byte"] for r in own if r["lr"] == lr]) for lr in rates]
        cells = [
            f"{lr:g}: {x:.3f}{'*' if x == min(bits) else ' '}"
            for lr, x in zip(rates, bits, strict=True)
        ]
        lines.append([variant.name, *cells])
    return aligned(lines, left=0)
