"""The ladder as a picture: a bar for each rung, bits per byte, compressors in grey below."""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from tok.files import replacing
from utils.ladder.corpus import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Bar = tuple[str, Result]  # family, which has a colour, and what was reached
COLOURS = {
    "counting": "#e0a458",
    "network": "#5b9279",
    "attention": "#3d6cb9",
    "compressor": "#b4b8bf",
}
INK, FAINT = "#22262d", "#8b9099"
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind a figure on a line


def positions(bars: Sequence[Bar]) -> list[float]:
    """Where each bar stands, from the top; half a bar's room above the compressors."""
    rivals = [family == "compressor" for family, _ in bars]
    steps = [1.0, *(1.0 if a == b else 1.5 for a, b in pairwise(rivals))]
    return [total - 1 for total in accumulate(steps)]


def draw_bars(axes: "Axes", bars: Sequence[Bar]) -> None:
    """The bars, each with its figure; its name on the left, and what it sees in small print."""
    at, bits = positions(bars), [result.bits_per_byte for _, result in bars]
    axes.barh(at, bits, height=0.72, color=[COLOURS[family] for family, _ in bars], zorder=2)
    axes.set_xlim(0, 1.08 * max(bits))
    axes.set_ylim(at[-1] + 0.6, -0.6)
    for y, (_, result) in zip(at, bars, strict=True):
        label = partial(axes.annotate, textcoords="offset points", va="center")
        end, figure = (result.bits_per_byte, y), f"{result.bits_per_byte:.2f}"
        label(figure, end, (7, 0), weight="bold", zorder=4, bbox=WHITE)
        label(result.name, (0, y), (-8, 5), ha="right")
        label(f"sees {result.sees}", (0, y), (-8, -6), ha="right", color=FAINT, fontsize=7.5)


def draw_best(axes: "Axes", bars: Sequence[Bar]) -> None:
    """A line at the best compressor's figure: a rung that ends left of it predicts better."""
    rivals = [(r.bits_per_byte, r.name) for family, r in bars if family == "compressor"]
    if rivals:
        bits, name = min(rivals)
        axes.axvline(bits, color=INK, lw=0.9, ls=(0, (4, 3)), zorder=3)
        style: dict[str, Any] = {"ha": "center", "color": FAINT, "fontsize": 8}
        axes.annotate(name, (bits, -0.6), (0, 3), textcoords="offset points", **style)


def draw_legend(axes: "Axes", bars: Sequence[Bar]) -> None:
    """What each colour is, where bars are short."""
    families = [family for family in COLOURS if family in {family for family, _ in bars}]
    patches = [axes.scatter([], [], s=64, marker="s", color=COLOURS[f]) for f in families]
    axes.legend(patches, families, loc="lower right", frameon=False, fontsize=9)


def draw(bars: Sequence[Bar], title: str, path: str) -> None:
    """Write the picture as a PNG, whole or not at all."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: importing it takes a second
    from matplotlib.figure import Figure

    with rc_context({"text.color": INK, "font.size": 9.5}):
        height = 1.3 + 0.42 * (positions(bars)[-1] + 1)
        figure = Figure(figsize=(8.6, height), layout="constrained")
        axes = figure.subplots()
        draw_bars(axes, bars)
        draw_best(axes, bars)
        draw_legend(axes, bars)
        axes.set_title(title, loc="left", pad=18, weight="bold", fontsize=11.5, x=0)
        axes.set_xlabel("bits per byte of the held-out tenth (shorter is better)", color=INK)
        axes.set_yticks([])
        axes.tick_params(colors=FAINT, length=0)
        axes.grid(axis="x", color="#e6e8eb", zorder=0)
        axes.spines[:].set_visible(False)
        FigureCanvasAgg(figure)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=140, facecolor="white")
