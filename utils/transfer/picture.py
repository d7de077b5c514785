"""transfer.png: loss over the learning rate, a curve a width, a panel for each way to train."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from tok.files import replacing
from utils.transfer.search import BASE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT = "#22262d", "#8b9099"


def means(losses: Sequence[dict[Any, float]]) -> tuple[list[float], list[float]]:
    """(learning rates, losses), a mean over the seeds that tried it; diverged ones are left out."""
    steps = sorted({int(k) for seed in losses for k in seed})
    points = []
    for k in steps:
        values = [seed[k] for seed in losses if k in seed]
        if np.isfinite(values).all():
            points.append((2.0**k / 1000, mean(values)))
    return [x for x, _ in points], [y for _, y in points]


def tried(results: Sequence[dict[str, Any]]) -> list[int]:
    """The steps of the grid that any of the panels has."""
    widths = [found for result in results for found in result["widths"]]
    return sorted({int(k) for found in widths for seed in found["losses"] for k in seed})


def draw_panel(axes: "Axes", result: dict[str, Any]) -> None:
    """The curves of a panel; a diamond at each width's best learning rate."""
    from matplotlib import colormaps

    for found in result["widths"]:
        colour = colormaps["viridis"](0.85 - 0.25 * np.log2(found["width"] / BASE))
        x, y = means(found["losses"])
        axes.plot(x, y, "o-", ms=3.5, lw=1.2, color=colour, label=f"{found['width']}")
        best = 2 ** float(np.nanmean(found["best"])) / 1000
        height = float(np.interp(np.log(best), np.log(x), y))
        axes.plot(best, height, "D", ms=8, mfc="none", mec=colour, mew=1.6)
    axes.set_xscale("log", base=2)
    drift = f"best moves by {result['drift']:+.2f} ± {result['error']:.2f} octaves per doubling"
    axes.set_title(result["panel"], loc="left", fontsize=11, weight="bold", y=1.06)
    axes.text(0, 1.015, drift, transform=axes.transAxes, color=FAINT, fontsize=9)
    axes.legend(title="width", frameon=False, fontsize=8)
    axes.grid(color="#e6e8eb")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=FAINT, labelsize=8)


def draw(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write the picture as a PNG, whole or not at all: optimizers below one another."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = (len(results) + 1) // 2
    with rc_context({"text.color": INK, "font.size": 9.5, "axes.labelcolor": INK}):
        figure = Figure(figsize=(10, 3.9 * rows), layout="constrained")
        grid = figure.subplots(rows, 2, squeeze=False, sharex="row", sharey="row")
        for axes, result in zip(grid.flat, results, strict=False):
            draw_panel(axes, result)
        for row, i in zip(grid, range(0, len(results), 2), strict=True):
            ticks = tried(results[i : i + 2])
            row[0].set_xticks([2.0**k / 1000 for k in ticks], [f"{2.0**k:g}" for k in ticks])
            row[0].set_ylabel("validation loss, nats a character")
        for axes in grid[-1]:
            axes.set_xlabel("learning rate, thousandths")
        FigureCanvasAgg(figure)
        with replacing(path) as part:
            figure.savefig(part, format="png", dpi=130, facecolor="white")
