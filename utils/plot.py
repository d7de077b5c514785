"""Draw a run's metrics.csv: losses, perplexity, learning rate, gradient norm, tokens per second.

python -m utils.plot                    # the newest run, to runs/plot.png
python -m utils.plot tiny shakespeare_char --out runs/two.png
python -m utils.plot tiny --watch       # watch.csv, layer by layer
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tok.cli import Parser, run
from tok.files import replacing
from utils.config import read_yaml
from utils.runs import latest_run, run_dir
from utils.training.score import perplexity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = list[tuple[int, float]]
PANELS = {  # column of metrics.csv: title, scale of y; train_loss is drawn with val_loss
    "lr": ("learning rate", "linear"),
    "grad_norm": ("gradient norm, before clipping", "log"),
    "tokens_per_s": ("tokens per second", "linear"),
}
WATCHED = {  # the same of watch.csv
    "update_ratio": ("|update| / |weights| of a step", "log"),
    "grad_norm": ("gradient norm", "log"),
    "activation": ("size of the residual stream", "log"),
    "attention_entropy": ("attention entropy / ln(keys)", "linear"),
    "dead_units": ("share of dead units", "linear"),
}
MOST = 4  # settings in a label


def read_rows(path: Path, cure: str) -> list[dict[str, str]]:
    """The rows of a CSV of a run. ValueError, with the cure, if there are none."""
    if not path.is_file():
        raise ValueError(f"no {path}; {cure}")
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def points(rows: list[dict[str, str]], column: str) -> Points:
    """(step, value) of the rows that have a value in this column."""
    return [(int(r["step"]), float(r[column])) for r in rows if r.get(column)]


def read_metrics(run: Path) -> dict[str, Points]:
    """Give {"train": [(step, loss), ...], "val": [...]} of a run's metrics.csv, and PANELS."""
    path = run / "metrics.csv"
    rows = read_rows(path, "give the name of a run that has trained")
    curves = {kind: points(rows, f"{kind}_loss") for kind in ("train", "val")}
    if not any(curves.values()):
        raise ValueError(f"{path} has no losses yet; train for more steps than log_every")
    return curves | {column: points(rows, column) for column in PANELS}


def read_watch(run: Path) -> dict[str, dict[str, Points]]:
    """Give {layer: {column: [(step, value), ...]}} of a run's watch.csv."""
    rows = read_rows(run / "watch.csv", "train with --watch")
    layers: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        layers.setdefault(row["layer"], []).append(row)
    return {
        layer: {column: points(own, column) for column in WATCHED} for layer, own in layers.items()
    }


def labels(runs: Sequence[Path]) -> list[str]:
    """The names of runs, each with the settings that differ: "a: lr=0.001, n_layer=2"."""
    files = [run / "config.yaml" for run in runs]
    configs = [read_yaml(file) if file.exists() else {} for file in files]
    names = [n for n in dict.fromkeys(k for c in configs for k in c) if n not in ("run", "data")]
    differ = [n for n in names if len({repr(c.get(n)) for c in configs}) > 1]
    found = []
    for path, config in zip(runs, configs, strict=True):
        said = [f"{n}={config[n]}" for n in differ if n in config]
        more = ", ..." if len(said) > MOST else ""
        found.append(f"{path.name}: {', '.join(said[:MOST])}{more}" if said else path.name)
    return found


def draw_points(axes: "Axes", points: Points, **style: Any) -> None:
    """A curve, with a mark where it has few points."""
    if points:
        mark = "o" if len(points) < 15 else ""
        axes.plot(*zip(*points, strict=True), **{"marker": mark, "ms": 3, **style})


def new_figure() -> "tuple[Figure, list[Axes]]":
    """Two rows of three axes."""
    from matplotlib.figure import Figure  # here: importing it takes a second

    figure = Figure(figsize=(13, 7), layout="constrained")
    return figure, list(figure.subplots(2, 3).flat)


def dress(axes: "Axes", title: str, scale: str) -> None:
    """Title, grid and scale of a panel."""
    from matplotlib.ticker import LogLocator

    axes.set(title=title, xlabel="step", yscale=scale)
    if scale == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: "Figure", last: "Axes", out: str) -> None:
    """Put the legend of the first axes into the last, which are empty, and write the PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    last.axis("off")
    last.legend(*figure.axes[0].get_legend_handles_labels(), loc="center left", frameon=False)
    FigureCanvasAgg(figure)
    with replacing(out) as part:
        figure.savefig(part, format="png", dpi=110)


def plot(runs: Sequence[Path], out: str) -> None:
    """Draw metrics of runs over each other into the PNG `out`: train thin, validation thick."""
    figure, axes = new_figure()
    several, named = len(runs) > 1, labels(runs)
    for i, (path, label) in enumerate(zip(runs, named, strict=True)):
        curves = read_metrics(path)
        thin: dict[str, Any] = {"color": f"C{i}" if several else "C7", "lw": 1, "alpha": 0.6}
        thick: dict[str, Any] = {"color": f"C{i}", "lw": 2, "marker": "o"}
        for kind, style in ("train", {**thin, "marker": ""}), ("val", thick):
            shown = label if several and kind == "val" else "" if several else kind
            draw_points(axes[0], curves[kind], label=shown or "_", **style)
            draw_points(axes[1], [(s, perplexity(x)) for s, x in curves[kind]], **style)
        for axis, column in zip(axes[2:], PANELS, strict=False):
            draw_points(axis, curves[column], color=f"C{i}", lw=1.2)
    both = "thin training, thick validation" if several else "training and validation"
    titles = [(f"loss (nats a token), {both}", "linear"), ("perplexity", "log"), *PANELS.values()]
    for axis, how in zip(axes, titles, strict=False):
        dress(axis, *how)
    for axis in (axes[2], axes[4]):
        axis.set_ylim(bottom=0)
    if not several:
        figure.suptitle(named[0])
    save(figure, axes[-1], out)


def plot_watch(run: Path, out: str) -> None:
    """Draw a run's watch.csv into the PNG `out`: a curve a layer, dark at the bottom."""
    from matplotlib import colormaps

    figure, axes = new_figure()
    layers = read_watch(run)
    for i, (layer, curves) in enumerate(layers.items()):
        color = colormaps["viridis"](i / max(1, len(layers) - 1) * 0.9)
        for axis, column in zip(axes, WATCHED, strict=False):
            draw_points(axis, curves[column], label=layer, color=color)
    for axis, how in zip(axes, WATCHED.values(), strict=False):
        dress(axis, *how)
    axes[3].set_ylim(0, 1)
    axes[4].set_ylim(-0.02, 1)
    figure.suptitle(f"{run.name}, layer by layer")
    save(figure, axes[-1], out)


def main(argv: Sequence[str] | None = None) -> None:
    """Plot the runs named, or the newest."""
    p = Parser(prog="python -m utils.plot", description=__doc__)
    p.add_argument("runs", nargs="*", metavar="RUN", help="names under runs/ (default: the newest)")
    p.add_argument("--watch", action="store_true", help="layers of one run that had --watch")
    p.add_argument("--out", default="runs/plot.png", help="PNG to write (default runs/plot.png)")
    a = p.parse_args(argv)
    runs = [run_dir(name) for name in a.runs] or [latest_run()]
    if a.watch and len(runs) > 1:
        raise ValueError("--watch draws the layers of one run; name one")
    if a.watch:
        plot_watch(runs[0], a.out)
    else:
        plot(runs, a.out)
    print(a.out)


if __name__ == "__main__":
    run(main)
