"""scaling.png: the isoFLOP curves with their minima, and the law beside what was trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tok.files import replacing
from utils.scaling.fit import Fit
from utils.scaling.runs import Run, curve, optimum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, STAR = "#22262d", "#8b9099", "#c8553d"


def colours(n: int) -> list[Any]:
    """As many colours, from dark to light."""
    from matplotlib import colormaps

    return [colormaps["viridis"](x) for x in np.linspace(0.1, 0.85, n)]


def draw_isoflop(axes: "Axes", runs: Sequence[Run]) -> None:
    """Loss over N, a curve a budget, its parabola, its minimum."""
    budgets = sorted({run.plan.budget for run in runs})
    for C, colour in zip(budgets, colours(len(budgets)), strict=True):
        points = curve(runs, C)
        N, L = np.array([p.N for p, _ in points]), np.array([loss for _, loss in points])
        axes.plot(N, L, "o", color=colour, label=f"{C:.0e} FLOPs")
        x = np.linspace(np.log(N[0]), np.log(N[-1]), 100)
        middle = np.log(N).mean()
        axes.plot(
            np.exp(x),
            np.polyval(np.polyfit(np.log(N) - middle, L, 2), x - middle),
            color=colour,
            lw=1,
        )
        try:
            best = optimum(runs, C)
        except ValueError:
            continue
        axes.plot(best[0], best[2], "D", ms=9, mfc="none", mec=colour, mew=1.6)
    axes.set_title("each budget has a best size", loc="left", fontsize=11, weight="bold")
    axes.set_xlabel("parameters N")
    axes.set_ylabel("validation loss, nats a character")


def draw_law(axes: "Axes", runs: Sequence[Run], law: Fit, found: Run) -> None:
    """Loss over D, a line a size: the law; points: what was trained."""
    sizes = sorted({run.plan.N for run in runs})
    for N, colour in zip(sizes, colours(len(sizes)), strict=True):
        own = [run for run in runs if run.plan.N == N]
        D = np.geomspace(min(r.plan.D for r in own), max(r.plan.D for r in own), 60)
        axes.plot(D, [law.loss(N, d) for d in D], color=colour, lw=1)
        where, loss = [r.plan.D for r in own], [r.loss for r in own]
        axes.plot(where, loss, "o", ms=4.5, color=colour, label=f"N = {N:,}")
    D = np.geomspace(found.plan.D / 4, found.plan.D, 30)
    axes.plot(D, [law.loss(found.plan.N, d) for d in D], color=STAR, lw=1, ls=":")
    axes.set_title("the law, and the run it had not seen", loc="left", fontsize=11, weight="bold")
    axes.set_xlabel("tokens D")


def draw(path: Path, runs: Sequence[Run], law: Fit, stated: dict[str, Any], found: Run) -> None:
    """Write the picture as a PNG, whole or not at all."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"text.color": INK, "font.size": 9.5, "axes.labelcolor": INK}):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_isoflop(left, runs)
        draw_law(right, runs, law, found)
        p = stated["chinchilla"]
        at, error = found.plan.D, [[p["loss"] - p["low"]], [p["high"] - p["loss"]]]
        right.errorbar(at, p["loss"], error, color=STAR, capsize=5, marker="_", label="predicted")
        label = f"found, N = {found.plan.N:,}"
        right.plot(at, found.loss, "*", ms=13, color=STAR, label=label, zorder=5)
        for axes in (left, right):
            axes.set_xscale("log")
            axes.grid(color="#e6e8eb")
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(colors=FAINT)
            axes.legend(frameon=False, fontsize=8)
        FigureCanvasAgg(figure)
        with replacing(path) as part:
            figure.savefig(part, format="png", dpi=130, facecolor="white")
