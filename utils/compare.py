"""Compare runs: settings that differ, figures, and whether the seeds' spread explains them.

python -m utils.compare a b                                   # runs under runs/, or paths
python -m utils.compare "runs/sweep-tiny/lr=0.005,*" "runs/sweep-tiny/lr=0.015,*"
python -m utils.compare "a-seed*" "b-seed*" c                 # all against the first

A pattern in quotes names the seeds of one thing. Of runs that were trained with one seed each
nobody knows whether they differ.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tok.cli import Parser, run
from utils.config import flat, recorded_settings
from utils.runs import RUNS, run_dir
from utils.spread import Difference, difference, mean, sd
from utils.sweep.one_run import figures
from utils.sweep.table import aligned
from utils.training.score import perplexity

Values = dict[str, Any]
SHOWN = {  # figure -> (what it is called, digits)
    "val_loss": ("validation loss", 4),
    "val_ppl": ("perplexity", 2),
    "bits_per_byte": ("bits per byte", 4),
    "seconds": ("seconds", 1),
    "tokens": ("tokens", 0),
    "tokens_per_s": ("tokens per second", 0),
    "params": ("parameters", 0),
}
IGNORED = {"run", "seed"}
FOUND = {"dtype"}  # auto may have found another for each seed


@dataclass(frozen=True)
class Group:
    """Runs of the same settings, but for the seed: name, settings, data and figures of each."""

    name: str
    settings: Sequence[Values]
    data: Sequence[Values]
    figures: Sequence[Values]

    def of(self, figure: str) -> list[float]:
        """A figure of each run."""
        return [float(f[figure]) for f in self.figures]


def find(pattern: str) -> list[Path]:
    """The finished runs that a name, path or pattern means. Raises ValueError for none."""
    exact = run_dir(pattern)
    parent = Path() if len(Path(pattern).parts) > 1 else RUNS
    paths = [exact] if exact.is_dir() else sorted(parent.glob(pattern))
    found = [path for path in paths if (path / "summary.json").exists()]
    if not found:
        raise ValueError(f"no finished run {pattern} (no {exact}/summary.json); see runs/")
    return found


def read(pattern: str) -> Group:
    """The group that a pattern means. Raises ValueError if other settings than the seed differ."""
    paths = find(pattern)
    texts = [(path / "summary.json").read_text(encoding="utf-8") for path in paths]
    summaries = [json.loads(text) for text in texts]
    settings = [flat(recorded_settings(s["settings"])) for s in summaries]
    if inside := set(differing(settings)) - FOUND:
        names = ", ".join(sorted(inside))
        raise ValueError(f"{pattern} means runs that differ in {names}; narrow it to the seeds")
    rows = [figures(path, s) for path, s in zip(paths, summaries, strict=True)]
    for row, s in zip(rows, summaries, strict=True):
        row |= {"val_ppl": perplexity(row["val_loss"]), "tokens_per_s": s["tokens_per_s"]}
    return Group(pattern, settings, [s["data"] for s in summaries], rows)


def differing(settings: Sequence[Values]) -> list[str]:
    """Names of settings that are not the same everywhere, seed and name left out."""
    return [k for k in settings[0] if k not in IGNORED and len({str(s[k]) for s in settings}) > 1]


def with_spread(xs: Sequence[float], digits: int) -> str:
    """`1.2345 ± 0.0123`, without the spread if there is none; `-` if one is not known."""
    if any(map(math.isnan, xs)):
        return "-"
    s, form = sd(xs), f",.{digits}f"
    return f"{mean(xs):{form}}" + (f" ± {s:{form}}" if s > 0 else "")


def verdict(d: Difference) -> str:
    """What a difference of losses means, in words."""
    if math.isnan(d.delta):
        return "one of them diverged"
    if math.isnan(d.p):
        return f"{d.delta:+.4f}; with one seed each nobody knows: train more, --seed 1 2 3"
    tested = f"{d.delta:+.4f}; t = {d.t:.2f}, df = {d.df:.1f}, p = {d.p:.2g}"
    if d.p < 0.05:
        return f"{tested}: more than the seeds' spread"
    more = f"seen with {d.seeds:g} seeds each, if it is real" if math.isfinite(d.seeds) else "none"
    return f"{tested}: within the seeds' spread ({d.spread:.4f}); {more}"


def measure(groups: Sequence[Group]) -> tuple[str, str]:
    """(figure to compare, why not the loss): bits per byte if tokenizers differ.

    Raises ValueError if the texts differ, or what is learnt from them.
    """
    if len(learnt := {str(s["objective"]) for g in groups for s in g.settings}) > 1:
        names = " and ".join(sorted(learnt))
        raise ValueError(f"they learn different things ({names}), so no figure compares")
    data = [d for g in groups for d in g.data]
    if len({(d.get("text_sha256"), d.get("val_bytes")) for d in data}) > 1:
        raise ValueError("their texts differ; score them on one: eval.py --data my.txt")
    if len({d.get("tokenizer_sha256") for d in data}) > 1:
        return "bits_per_byte", "their tokenizers differ, so loss and perplexity do not compare"
    return "val_loss", ""


def report(groups: Sequence[Group]) -> str:
    """The comparison as text: settings, figures, verdicts against the first."""
    letters = [chr(ord("A") + i) for i in range(len(groups))]
    names = [f"{letter}  {g.name}" for letter, g in zip(letters, groups, strict=True)]
    settings = differing([s for g in groups for s in g.settings])
    lines = [["", *letters]]
    lines += [[k, *(str(g.settings[0][k]) for g in groups)] for k in settings]
    lines += [["seeds", *(str(len(g.figures)) for g in groups)]]
    for figure, (label, digits) in SHOWN.items():
        lines += [[label, *(with_spread(g.of(figure), digits) for g in groups)]]
    figure, why = measure(groups)
    said = [f"note: {why}"] if why else []
    if any(math.isnan(x) for g in groups for x in g.of(figure)):
        said.append("note: nor do bits per byte, where a tokenizer does not keep the text")
        letters, groups = letters[:1], groups[:1]
    for letter, g in zip(letters[1:], groups[1:], strict=True):
        d = difference(groups[0].of(figure), g.of(figure))
        said.append(f"{letter} - A, {SHOWN[figure][0]}: {verdict(d)}")
    said += [] if settings else ["their settings are the same"]
    return "\n".join([*names, "", aligned(lines, left=0), "", *said])


def main(argv: Sequence[str] | None = None) -> None:
    """Print the comparison of the runs that are named."""
    p = Parser(prog="python -m utils.compare", description=__doc__)
    p.add_argument("runs", nargs="+", metavar="RUN", help="names, paths or patterns of runs")
    a = p.parse_args(argv)
    if len(a.runs) < 2:
        raise ValueError(f"nothing to compare {a.runs[0]} with; name a second run")
    print(report([read(pattern) for pattern in a.runs]))


if __name__ == "__main__":
    run(main)
