"""Draw metrics.csv: loss and perplexity over steps, of one run or several.

python -m utils.plot                    # the newest run, to runs/plot.png
python -m utils.plot tiny shakespeare_char --out runs/two.png
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tok.cli import Parser, run
from tok.files import replacing
from utils.runs import latest_run, run_dir
from utils.training.score import perplexity


def read_metrics(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Give {"train": [(step, loss), ...], "val": [...]} of a run's metrics.csv."""
    path = run / "metrics.csv"
    if not path.is_file():
        raise ValueError(f"no {path}; give the name of a run that has trained")
    with open(path, encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    curves = {
        kind: [(int(r["step"]), float(r[f"{kind}_loss"])) for r in rows if r[f"{kind}_loss"]]
        for kind in ("train", "val")
    }
    if not any(curves.values()):
        raise ValueError(f"{path} has no losses yet; train for more steps than log_every")
    return curves


def plot(runs: Sequence[Path], out: str) -> None:
    """Draw losses (nats) and perplexities of runs, train thin and val thick, into the PNG `out`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: importing it takes a second
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for i, path in enumerate(runs):
        for kind, points in read_metrics(path).items():
            steps, losses = zip(*points, strict=True) if points else ((), ())
            label = f"{kind} ({Path(path).name})" if len(runs) > 1 else kind
            width, alpha, mark = (1.0, 0.5, "") if kind == "train" else (2.2, 1.0, "o")
            color = f"C{i}" if len(runs) > 1 or kind == "val" else "C7"
            style: dict[str, Any] = {"label": label, "color": color, "lw": width}
            style |= {"alpha": alpha, "marker": mark}
            axes[0].plot(steps, losses, **style)
            axes[1].plot(steps, [perplexity(x) for x in losses], **style)
    axes[0].set(xlabel="step", ylabel="loss (nats per token)", title="loss")
    axes[1].set(xlabel="step", ylabel="perplexity", title="perplexity", yscale="log")
    for axis in axes:
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    if len(runs) == 1:
        figure.suptitle(Path(runs[0]).name)
    FigureCanvasAgg(figure)
    with replacing(out) as part:
        figure.savefig(part, format="png", dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Plot the runs named, or the newest."""
    p = Parser(prog="python -m utils.plot", description=__doc__)
    p.add_argument("runs", nargs="*", metavar="RUN", help="names under runs/ (default: the newest)")
    p.add_argument("--out", default="runs/plot.png", help="PNG to write (default runs/plot.png)")
    a = p.parse_args(argv)
    plot([run_dir(name) for name in a.runs] or [latest_run()], a.out)
    print(a.out)


if __name__ == "__main__":
    run(main)
