"""results.png: a line for one setting, a heat map for two, a panel each for more."""

import math
from collections.abc import Sequence
from typing import Any

from tok.files import replacing
from utils.spread import sd
from utils.sweep.space import Range, Sweep
from utils.sweep.table import DONE, Point

LABEL = {"val_loss": "validation loss", "bits_per_byte": "bits per byte"}


def position(sweep: Sweep, name: str, value: Any) -> float:
    """Where a value stands on its axis: a range's by itself, another by its rank in the list."""
    choices = sweep.space[name]
    return float(value) if isinstance(choices, Range) else choices.index(value)


def axis_of(axes: Any, which: str, sweep: Sweep, name: str) -> None:
    """Label the axis "x" or "y" by the setting and its values."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    choices, axis = sweep.space[name], getattr(axes, f"{which}axis")
    axis.set_label_text(name)
    if not isinstance(choices, Range):
        axis.set_ticks(range(len(choices)), list(map(str, choices)))
        axes.set(**{f"{which}lim": (-0.5, len(choices) - 0.5)})
    elif choices.log:
        axes.set(**{f"{which}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def spread_of(point: Point) -> float:
    """Its standard deviation over seeds; 0 if it has none."""
    s = sd([run[point.measure] for run in point.runs])
    return 0.0 if math.isnan(s) else s


def line(axes: Any, sweep: Sweep, name: str, points: Sequence[Point], join: bool) -> None:
    """Loss over one setting, with its spread over seeds."""
    pairs = [(position(sweep, name, p.values[name]), p) for p in points]
    pairs = sorted(pairs, key=lambda pair: pair[0])
    xs, ys = [x for x, _ in pairs], [p.score for _, p in pairs]
    errors = [spread_of(p) for _, p in pairs]
    axes.errorbar(xs, ys, yerr=errors, marker="o", ls="-" if join else "", capsize=4)
    axes.set(ylabel=f"{LABEL[sweep.measure]}, mean and sd")
    axes.grid(alpha=0.3)
    axis_of(axes, "x", sweep, name)


def heat_map(axes: Any, sweep: Sweep, names: Sequence[str], points: Sequence[Point]) -> Any:
    """Loss as a colour over two settings: cells for lists, dots where one is a range."""
    x, y = names
    axis_of(axes, "x", sweep, x)
    axis_of(axes, "y", sweep, y)
    places = [(position(sweep, x, p.values[x]), position(sweep, y, p.values[y])) for p in points]
    losses = [p.score for p in points]
    if any(isinstance(sweep.space[name], Range) for name in names):
        across, up = zip(*places, strict=True)
        best = losses.index(min(losses))
        axes.scatter(*places[best], s=320, facecolors="none", edgecolors="C3", linewidths=2)
        return axes.scatter(across, up, c=losses, s=120, cmap="viridis_r", edgecolors="k")
    sizes = [len(sweep.space[name]) for name in (y, x)]  # type: ignore[arg-type]
    cells = [[math.nan] * sizes[1] for _ in range(sizes[0])]
    middle = (min(losses) + max(losses)) / 2
    for (i, j), point in zip(places, points, strict=True):
        cells[int(j)][int(i)] = point.score
        s = spread_of(point)
        text = f"{point.score:.3f}" + (f"\n± {s:.3f}" if s else "")
        color = "black" if point.score < middle else "white"
        axes.text(i, j, text, ha="center", va="center", color=color, fontsize=9)
    return axes.imshow(cells, origin="lower", aspect="auto", cmap="viridis_r")


def draw(sweep: Sweep, points: Sequence[Point]) -> str:
    """Write results.png of the points that were trained to their end; its path, "" for none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # importing it takes a second
    from matplotlib.figure import Figure

    points, names = [p for p in points if p.status in DONE and math.isfinite(p.score)], sweep.varied
    if not points or not names:
        return ""
    panels = len(names) if len(names) > 2 else 1
    size = (min(18, 4.6 * panels + 1.8), 4.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if len(names) == 2:
        colors = heat_map(axes[0], sweep, names, points)
        figure.colorbar(colors, ax=axes[0], label=f"{LABEL[sweep.measure]}, mean over seeds")
    else:
        for panel, name in zip(axes, names, strict=True):
            line(panel, sweep, name, points, join=panels == 1)
    title = f"{sweep.path.name}: {len(points)} points, seeds of each: {len(points[0].runs)}"
    figure.suptitle(title)
    FigureCanvasAgg(figure)
    out = sweep.path / "results.png"
    with replacing(out) as part:
        figure.savefig(part, format="png", dpi=110)
    return str(out)
