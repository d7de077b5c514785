"""What a lesson has found, in numbers, and its picture. Knows nothing of models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

from tok.files import replacing

COLORS = {"broken": "C3", "mended": "C2"}
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Panel:
    """One plot: curves by name, a sequence over 0, 1, ... or a mapping x -> y; names for x."""

    title: str
    x: str
    curves: Mapping[str, Sequence[float] | Mapping[int, float]]
    log: bool = False
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Outcome:
    """What is compared, its values by "broken" and "mended", the bar that only one may pass.

    notes are what else was seen, a line each.
    """

    quantity: str
    values: Mapping[str, float]
    bar: float
    panels: Sequence[Panel]
    notes: Sequence[str] = ()

    @property
    def shown(self) -> bool:
        """Whether the fault is there, and the cure cures it."""
        return self.values["broken"] > self.bar >= self.values["mended"]

    def __str__(self) -> str:
        verdict = "the fault shows" if self.shown else "THE FAULT DOES NOT SHOW"
        first = f"{self.quantity}: {said(self.values)}; the bar is {self.bar:.3f}: {verdict}"
        return "\n".join(f"  {line}" for line in (first, *self.notes))


def both(f: Callable[[A], B], of: Mapping[str, A]) -> dict[str, B]:
    """The same of each: both(len, {"broken": "a", "mended": ""}) -> {"broken": 1, "mended": 0}."""
    return {name: f(value) for name, value in of.items()}


def said(values: Mapping[str, float], form: str = ".3f") -> str:
    """Values for people: `broken 2.978, mended 1.769`."""
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())


def draw(outcome: Outcome, title: str, path: Path) -> None:
    """Write the panels side by side as a small PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: importing it takes a second
    from matplotlib.figure import Figure

    n = len(outcome.panels)
    figure = Figure(figsize=(0.6 + 3.6 * n, 3.0), layout="constrained")
    for axes, panel in zip(figure.subplots(1, n, squeeze=False)[0], outcome.panels, strict=True):
        draw_panel(axes, panel)
    figure.suptitle(title, fontsize=11)
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(str(path)) as part:
        figure.savefig(part, format="png", dpi=80)


def draw_panel(axes: Any, panel: Panel) -> None:
    """Draw one plot: what is broken in red, what is mended in green, anything else in grey."""
    from matplotlib.ticker import LogLocator

    styles = cycle(("--", ":", "-."))
    for name, curve in panel.curves.items():
        xs, ys = zip(
            *(curve.items() if isinstance(curve, Mapping) else enumerate(curve)), strict=True
        )
        kind = name.split(",")[0]
        style = {"ls": "-" if name in COLORS else next(styles), "color": COLORS.get(kind, "C7")}
        axes.plot(xs, ys, marker="o" if len(xs) < 15 else "", ms=3, lw=1.6, label=name, **style)
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(panel.x, fontsize=8)
    axes.tick_params(labelsize=8)
    if panel.names:
        axes.set_xticks(range(len(panel.names)), panel.names)
        axes.margins(x=0.2)
    if panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
