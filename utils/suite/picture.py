"""suite.png: a panel a skill, over training; by_position.png: loss over positions."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.skills import SKILLS
from tok.files import replacing
from utils.suite.position import Span
from utils.suite.report import Steps, names_of, pick
from utils.suite.rows import Row
from utils.suite.stories import ALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line = tuple[str, str, int]  # measure, name, level
COLUMNS = 4
BLUES = ["#9ec4ea", "#3f82c8", "#12365f"]  # levels, from the easiest


def draw_line(axes: "Axes", steps: Steps, line: Line, label: str, color: str) -> None:
    """A figure over steps, with its interval, and chance or validation as dots."""
    points = [(step, pick(rows, *line)) for step, rows in steps.items()]
    xs, of = [step for step, _ in points], [found["model"] for _, found in points]
    axes.plot(xs, [r.value for r in of], color=color, marker="o", ms=3, label=label)
    band = [r.low for r in of], [r.high for r in of]
    axes.fill_between(xs, *band, color=color, alpha=0.15, lw=0)
    found = points[0][1]
    if bound := found.get("chance") or found.get("validation"):
        axes.axhline(bound.value, color=color, ls=":", lw=1)


def draw_skill(axes: "Axes", steps: Steps, name: str, levels: Sequence[int]) -> None:
    """Right answers of a skill, a line a level."""
    for color, level in zip(BLUES[-len(levels) :], levels, strict=True):
        draw_line(axes, steps, ("exact", name, level), f"{level} {SKILLS[name].unit}", color)
    dress(axes, f"{name}: right answers")
    axes.set_ylim(-0.03, 1.03)


def draw_repeat(axes: "Axes", steps: Steps, _: str, __: Sequence[int]) -> None:
    """Nats of random tokens the first time and the second."""
    for copy, color in ("first copy", "#8b9099"), ("second copy", "#c8553d"):
        draw_line(axes, steps, ("repeat", copy, 0), copy, color)
    dress(axes, "random tokens twice: nats a token")
    axes.set_ylim(bottom=0)


def draw_rules(axes: "Axes", steps: Steps, _: str, __: Sequence[int]) -> None:
    """Texts that keep the rules: each thin, all together thick, of validation dotted."""
    rules = [name for name, _ in names_of(next(iter(steps.values())), "rule")]
    for i, rule in enumerate(rule for rule in rules if rule != ALL):
        of = [pick(rows, "rule", rule)["model"].value for rows in steps.values()]
        axes.plot(list(steps), of, lw=1, color=f"C{i}", label=rule)
    draw_line(axes, steps, ("rule", ALL, 0), ALL, "#22262d")
    dress(axes, "stories that keep rules")
    axes.set_ylim(-0.03, 1.03)


def dress(axes: "Axes", title: str) -> None:
    """Title, grid, legend."""
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)


def panels(rows: Sequence[Row]) -> Iterator[tuple[Any, str, list[int]]]:
    """(what draws it, name, levels) of each panel."""
    exact = names_of(rows, "exact")
    for name in dict.fromkeys(name for name, _ in exact):
        yield draw_skill, name, [level for other, level in exact if other == name]
    if names_of(rows, "repeat"):
        yield draw_repeat, "", []
    if names_of(rows, "rule"):
        yield draw_rules, "", []


def new_figure(n: int) -> "tuple[Figure, list[Axes]]":
    """N panels and the room that is left."""
    from matplotlib.figure import Figure  # here: importing it takes a second

    columns = min(n, COLUMNS)
    lines = -(-n // columns)
    figure = Figure(figsize=(3.6 * columns, 3 * lines + 0.4), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for empty in axes[n:]:
        empty.axis("off")
    return figure, axes


def save(figure: "Figure", path: Path) -> None:
    """Write a PNG, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=100)


def draw_curve(steps: Steps, losses: Sequence[tuple[int, float]], title: str, path: Path) -> None:
    """A panel a skill over steps, then random tokens, stories, and the validation loss."""
    found = list(panels(next(iter(steps.values()))))
    figure, axes = new_figure(len(found) + bool(losses))
    for panel, (draw, name, levels) in zip(axes, found, strict=False):
        draw(panel, steps, name, levels)
    if losses:
        last = axes[len(found)]
        last.plot(*zip(*losses, strict=True), color="#22262d", marker="o", ms=3, label="validation")
        dress(last, "loss (nats a token)")
    for panel in axes:
        panel.set_xlabel("step", fontsize=8)
    figure.suptitle(title)
    save(figure, path)


def draw_positions(
    each: Sequence[Span], doubled: Sequence[Span], bigram: float, title: str, path: Path
) -> None:
    """Loss over positions, thin; over doubling spans with two standard errors, thick."""
    figure, (axes,) = new_figure(1)
    figure.set_size_inches(7, 4)
    axes.plot([s.first for s in each], [s.loss for s in each], color="#9ec4ea", lw=0.8)
    middle = [(s.first * s.last) ** 0.5 for s in doubled]
    how: dict[str, Any] = {"yerr": [2 * s.se for s in doubled], "fmt": "o-", "capsize": 3}
    axes.errorbar(middle, [s.loss for s in doubled], color="#1f4e9c", label="model", **how)
    axes.axhline(bigram, color="#c8553d", ls="--", label="bigram")
    axes.set(xscale="log", xlabel="position in the context", ylabel="loss (nats a token)")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    dress(axes, title)
    save(figure, path)
