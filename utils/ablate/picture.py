"""All variants as a picture: a panel for each text, a dot for each difference to the baseline."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tok.files import replacing
from utils.ablate.plan import TIME, TOKENS
from utils.ablate.results import Results, signed
from utils.ablate.variants import Variant
from utils.spread import mean, sd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BETTER, WORSE, UNSURE = "#2f7d6b", "#c4622d", "#8b9099"
INK, FAINT, BAND = "#22262d", "#8b9099", "#eef0f3"
LINEAR = 0.05  # bits per byte on either side of 0 that the axis shows without a logarithm
TICKS = (0, 0.03, 0.1, 0.3, 1)


def heights(variants: Sequence[Variant]) -> list[float]:
    """Where each row stands, from the top: a gap between two ablations."""
    at, y = [], 0.0
    for i, variant in enumerate(variants):
        y += 0 if i == 0 else 1 if variant.ablation == variants[i - 1].ablation else 1.6
        at.append(y)
    return at


def colour(results: Results, text: str, variant: Variant, equal: str) -> str:
    """Green for better and orange for worse than luck explains, grey for neither."""
    d = results.difference(text, variant, equal)
    if not results.mark(d):
        return UNSURE
    return BETTER if d.delta < 0 else WORSE


def dot(axes: "Axes", results: Results, text: str, variant: Variant, y: float, equal: str) -> None:
    """A difference with its interval: full for equal tokens, hollow and below for equal time."""
    d = results.difference(text, variant, equal)
    if not math.isfinite(d.delta):
        return
    ink, full = colour(results, text, variant, equal), equal == TOKENS
    margin = d.margin if math.isfinite(d.margin) else 0.0
    axes.errorbar(
        d.delta, y, xerr=margin, fmt="o", ms=6.5 if full else 5.5, color=ink, elinewidth=1.6,
        capsize=0, mfc=ink if full else "white", mew=1.4, zorder=3 + full,
    )  # fmt: skip


def panel(axes: "Axes", results: Results, text: str) -> None:
    """A text's differences, and the baseline's own spread as a band about 0."""
    variants = results.plan.variants[1:]
    for y, variant in zip(heights(variants), variants, strict=True):
        apart = results.plan.apart(text, variant)
        dot(axes, results, text, variant, y - 0.17 * apart, TOKENS)
        if apart:
            dot(axes, results, text, variant, y + 0.22, TIME)
    bits = results.of(text, results.plan.variants[0], TOKENS)
    spread = sd(bits) if len(bits) > 1 else 0.0
    axes.axvspan(-spread, spread, color=BAND, zorder=0)
    axes.axvline(0, color=INK, lw=0.9, zorder=1)
    axes.set_title(f"{text}: baseline {mean(bits):.3f} bits per byte", loc="left", fontsize=10.5)


def scale(axes: "Axes", results: Results) -> None:
    """The axis of differences: small ones in full width, large ones by their logarithm."""
    found = [
        results.difference(text, v, equal).delta
        for text in results.plan.texts
        for v in results.plan.variants[1:]
        for equal in (TOKENS, TIME)
    ]
    finite = [x for x in found if math.isfinite(x)] or [0.0]
    low, high = min(-LINEAR, 1.6 * min(finite)), max(LINEAR, 1.6 * max(finite))
    ticks = sorted({sign * t for t in TICKS for sign in (-1, 1) if low < sign * t < high})
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=0.8)
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [signed(t).rstrip("0").rstrip(".") if t else "0" for t in ticks])
    axes.minorticks_off()
    axes.grid(axis="x", color="#e6e8eb", zorder=0)


def legend(axes: "Axes") -> None:
    """What full, hollow and each colour mean."""
    marks = [
        (INK, INK, "equal tokens"),
        (INK, "white", "equal time, where it differs"),
        (BETTER, BETTER, "better"),
        (WORSE, WORSE, "worse"),
        (UNSURE, UNSURE, "within the seeds' spread"),
    ]
    dots = [axes.scatter([], [], s=36, edgecolors=edge, facecolors=face) for edge, face, _ in marks]
    axes.figure.legend(
        dots, [said for *_, said in marks], loc="outside lower center", ncols=5, frameon=False,
        fontsize=8.5, handletextpad=0.2, columnspacing=1.4,
    )  # fmt: skip


def draw(results: Results, path: str) -> None:
    """Write the picture as a PNG, whole or not at all."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: importing it takes a second
    from matplotlib.figure import Figure

    variants, texts = results.plan.variants[1:], list(results.plan.texts)
    at = heights(variants) or [0.0]
    with rc_context({"text.color": INK, "font.size": 9.5}):
        size = (2.6 + 3.7 * len(texts), 1.8 + 0.27 * (at[-1] + 1))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(texts), squeeze=False, sharey=True)[0]
        for axes, text in zip(panels, texts, strict=True):
            panel(axes, results, text)
            scale(axes, results)
            axes.set_xlabel("difference in bits per byte, 95 % interval (left is better)")
            axes.tick_params(colors=FAINT, length=0)
            axes.spines[:].set_visible(False)
        panels[0].set_yticks(at[: len(variants)], [v.name for v in variants], color=INK)
        panels[0].set_ylim(at[-1] + 0.8, -0.8)
        legend(panels[0])
        FigureCanvasAgg(figure)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=140, facecolor="white")
