"""What came of the runs: results.csv, a row each; differences to the baseline; a Markdown table."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tok.files import replacing
from utils.ablate.plan import TIME, TOKENS, Plan, Run
from utils.ablate.variants import ABLATIONS, BASELINE, Variant
from utils.spread import Difference, difference, mean, sd

Row = dict[str, Any]
LEVEL = 0.05  # of a comparison alone
HEAD = ["variant", "parameters", "time of a step"]
HEAD += ["equal tokens: bits per byte", "difference"]
HEAD += ["equal time: steps", "bits per byte", "difference"]


def row_of(run: Run, figures: Mapping[str, Any]) -> Row:
    """A run's row of results.csv."""
    s = run.settings
    own = {"text": run.text, "variant": run.variant.name, "equal": run.equal, "seed": run.seed}
    own |= {"lr": s.optim.lr, "steps": s.train.steps}
    kept = ("tokens", "params", "bits_per_byte", "val_loss", "seconds", "dtype")
    return {**own, **{name: figures[name] for name in kept}}


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write a table for machines, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, open(part, "w", encoding="utf-8", newline="") as f:
        table = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


class Results:
    """Bits per byte of every run, by text, variant and what was equal; all against the baseline."""

    def __init__(self, plan: Plan, rows: Iterable[Row]):
        self.plan, self.rows = plan, list(rows)

    def of(
        self, text: str, variant: Variant, equal: str, figure: str = "bits_per_byte"
    ) -> list[Any]:
        """A figure of each seed. By equal time those by equal tokens, if a step takes as long."""
        equal = equal if equal == TIME and self.plan.apart(text, variant) else TOKENS
        where = text, variant.name, equal
        return [r[figure] for r in self.rows if (r["text"], r["variant"], r["equal"]) == where]

    def difference(self, text: str, variant: Variant, equal: str) -> Difference:
        """The variant's mean less the baseline's, with its interval; NaN if one was not trained."""
        baseline = self.of(text, self.plan.variants[0], TOKENS)
        return difference(baseline, self.of(text, variant, equal))

    @property
    def comparisons(self) -> int:
        """How many variants each text is asked about: what LEVEL is divided by for `**`."""
        return len(self.plan.variants) - 1

    def mark(self, d: Difference) -> str:
        """`*`: luck alone would do that in 1 of 20 comparisons; `**`: in 1 of 20 such tables."""
        return "*" * ((d.p < LEVEL) + (d.p < LEVEL / max(1, self.comparisons)))

    def note(self) -> str:
        """How far the marks can be trusted."""
        n, texts = self.comparisons, len(self.plan.texts)
        lucky = f"{LEVEL * n * texts:.0f} of {n * texts}"
        return (
            f"*  beyond the seeds' spread at p < {LEVEL}: luck alone marks {lucky} comparisons\n"
            f"** at p < {LEVEL} / {n}: luck alone marks one in {round(1 / LEVEL)} tables"
        )

    def table(self, text: str) -> str:
        """The table of a text, in Markdown: a question, and under it what was tried."""
        lines = [HEAD, ["---"] + ["---:"] * (len(HEAD) - 1)]
        lines += [self.line(text, self.plan.variants[0])]
        for ablation in ABLATIONS:
            own = [v for v in self.plan.variants if v.ablation == ablation.name]
            if own:
                lines += [[f"**{ablation.question}**"] + [""] * (len(HEAD) - 1)]
                lines += [self.line(text, variant) for variant in own]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)

    def line(self, text: str, variant: Variant) -> list[str]:
        """A variant's row of the table."""
        params = self.of(text, variant, TOKENS, "params")
        ratio = self.plan.ratios[text][variant.name]
        cells = [variant.name, f"{params[0]:,}" if params else "", f"{ratio:.2f} x"]
        cells += self.cells(text, variant, TOKENS)
        if not self.plan.apart(text, variant):
            return [*cells, "", "", ""]
        return [*cells, str(self.plan.steps(text, variant, TIME)), *self.cells(text, variant, TIME)]

    def cells(self, text: str, variant: Variant, equal: str) -> list[str]:
        """Mean and spread over the seeds, and the difference with its interval."""
        bits = self.of(text, variant, equal)
        if not bits:
            return ["not trained", ""]
        if not math.isfinite(mean(bits)):
            return ["diverged", ""]
        if variant.name == BASELINE:
            return [spread(bits), ""]
        d = self.difference(text, variant, equal)
        margin = f" ± {d.margin:.3f}" if math.isfinite(d.margin) else ""  # not of one seed
        return [spread(bits), f"{signed(d.delta)}{margin} {self.mark(d)}".strip()]


def spread(xs: Sequence[float]) -> str:
    """`1.234 ± 0.005`: mean and standard deviation; of one seed `1.234`."""
    return f"{mean(xs):.3f}" + (f" ± {sd(xs):.3f}" if len(xs) > 1 else "")


def signed(x: float) -> str:
    """`+0.012`, or with a true minus sign."""
    return f"{x:+.3f}".replace("-", "\N{MINUS SIGN}")
