"""What is inside a model as a picture: the logit lens, losses, every head, what comes next.

Each `draw_` function fills one pair of axes of matplotlib, in a notebook as well as here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tok.files import replacing
from utils.look.inside import Array, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, LINE = "#22262d", "#8b9099", "#e6e8eb"
ACCENT, WARM, RIGHT = "#1f4e9c", "#c8553d", "#2fc383"
FONT: dict[str, Any] = {
    "family": "DejaVu Sans Mono",
    "parse_math": False,
}  # matplotlib has it; "$" is a dollar
SMALL: dict[str, Any] = {"color": FAINT, "fontsize": 8, "textcoords": "offset points"}
COLUMNS = 9  # of the lens: deeper models show every second block, or third
LETTER = 8 / 72 * 0.602  # inches: how wide a letter of 8 points is in this font
WIDTH = 12.0  # inches of the whole picture
MOST = 48  # tokens


def blues() -> Any:
    """White to blue; grey for less than 0, nothing for NaN."""
    from matplotlib.colors import LinearSegmentedColormap

    steps = ["#ffffff", "#dbe7f7", "#8fb3e3", "#3f74c4", ACCENT, "#12305f"]
    return LinearSegmentedColormap.from_list("look", steps).with_extremes(
        under="#f4f5f7", bad="white"
    )


def cut(text: str, n: int) -> str:
    """At most n characters that the font has: the end becomes "…", a character it lacks "□"."""
    from matplotlib.font_manager import findfont, get_font

    has = get_font(findfont(FONT["family"])).get_charmap()
    text = "".join(c if ord(c) in has else "□" for c in text)
    return text if len(text) <= n else text[: n - 1] + "…"


def percent(p: float) -> str:
    """0.031 -> "3%"."""
    return f"{p:.0%}" if p >= 0.005 else "<1%"


def bare(axes: "Axes") -> None:
    """No frame, no ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def depths_shown(depths: int, most: int = COLUMNS) -> list[int]:
    """At most `most` of 0 to depths - 1, the first and the last among them: 31, 4 -> 0 10 20 30."""
    return sorted({round(i) for i in np.linspace(0, depths - 1, min(depths, most)).tolist()})


def draw_lens(axes: "Axes", look: Look, top: int = 1, columns: int = COLUMNS) -> None:
    """The logit lens: a row a token, a column a depth, in it the `top` likeliest next tokens.

    Blue is the first's probability; a green edge marks a guess that came true.
    """
    shown, T = depths_shown(len(look.p), columns), len(look.ids)
    axes.imshow(look.p[shown, :, 0].T, cmap=blues(), vmin=0, vmax=1, aspect="auto")
    inches = axes.get_window_extent().width / axes.figure.dpi / len(shown)
    letters = int(0.88 * inches / LETTER)
    for column, depth in enumerate(shown):
        for row in range(T):
            draw_cell(axes, look, (depth, row), column, top, letters)
        name = "embedding" if depth == 0 else f"block {depth}"
        axes.text(column, -0.62, name, ha="center", va="bottom", fontsize=8, color=FAINT)
    for row, name in enumerate(look.labels):
        axes.text(-0.56, row, cut(name, 14), ha="right", va="center", fontsize=8.5, **FONT)
    for y in range(1, T):
        axes.axhline(y - 0.5, color="white", lw=2)
    for x in range(1, len(shown)):
        axes.axvline(x - 0.5, color="white", lw=2)
    bare(axes)


def draw_cell(
    axes: "Axes", look: Look, at: tuple[int, int], column: int, top: int, letters: int
) -> None:
    """The `top` likeliest tokens at (depth, token), a line each; p where there is room."""
    row, dark = at[1], look.p[at][0] > 0.45
    truth = look.ids[row + 1] if row + 1 < len(look.ids) else -1
    for i in range(min(top, len(look.p[at]))):
        token, p = int(look.likely[at][i]), float(look.p[at][i])
        y = row + (i - (top - 1) / 2) * 0.8 / top
        style: dict[str, Any] = {"va": "center", "fontsize": 8 if i == 0 else 7, **FONT}
        style |= {"color": "white" if dark else INK}
        if token == truth:
            style["weight"] = "bold"
            axes.plot([column - 0.47] * 2, [y - 0.36 / top, y + 0.36 / top], color=RIGHT, lw=3)
        wide = letters > 11
        axes.text(column - 0.43, y, cut(look.names[token], letters - 5 * wide), ha="left", **style)
        if wide:
            axes.text(column + 0.44, y, percent(p), ha="right", **{**style, "alpha": 0.75})


def draw_loss(axes: "Axes", look: Look) -> None:
    """The token that came after each row's, and what it cost in nats."""
    T = len(look.ids)
    most = max([1.0, *look.loss.tolist()])
    axes.barh(range(T - 1), look.loss, height=0.62, color=WARM, alpha=0.85)
    for row, nats in enumerate(look.loss.tolist()):
        axes.text(nats + 0.02 * most, row, f"{nats:.2f}", va="center", fontsize=7.5, color=FAINT)
        name = cut(look.labels[row + 1], 14)
        axes.text(-0.03 * most, row, name, ha="right", va="center", fontsize=8.5, **FONT)
    axes.set_xlim(0, 1.2 * most)
    axes.set_ylim(T - 0.5, -0.5)
    bare(axes)


def draw_next(axes: "Axes", look: Look, n: int = 10) -> None:
    """The likeliest tokens after the whole text, with their probabilities."""
    p, ids = look.p[-1, -1][:n], look.likely[-1, -1][:n].tolist()
    axes.barh(range(len(p)), p, height=0.7, color=ACCENT, alpha=0.85)
    for row, (i, share) in enumerate(zip(ids, p.tolist(), strict=True)):
        name = cut(look.names[i], 12)
        axes.text(-0.03 * p[0], row, name, ha="right", va="center", fontsize=8.5, **FONT)
        axes.text(share + 0.03 * p[0], row, percent(share), va="center", fontsize=7.5, color=FAINT)
    axes.set_xlim(0, 1.25 * p[0])
    axes.set_ylim(len(p) - 0.4, -0.6)
    bare(axes)


def mosaic(attention: Array, gap: int) -> Array:
    """All heads as one image, (L,H,T,T) -> (L(T+gap)-gap, H(T+gap)-gap); -1 ahead, NaN between."""
    L, H, T, _ = attention.shape
    tiles = np.full((L, T + gap, H, T + gap), np.nan)
    past = np.where(np.tri(T, dtype=bool), attention, -1)
    tiles[:, :T, :, :T] = past.transpose(0, 2, 1, 3)
    return tiles.reshape(L * (T + gap), -1)[: L * (T + gap) - gap, : H * (T + gap) - gap]


def draw_heads(axes: "Axes", look: Look, cell: float = 0.15) -> None:
    """Every head, a row of them a block: how much a token (row) takes from each before (column).

    cell is the size of a pair of tokens, in inches; where it is too small, tokens go unnamed.
    """
    from matplotlib.colors import PowerNorm

    L, H, T, _ = look.attention.shape
    step = T + gap_of(cell)
    image = mosaic(look.attention, step - T)
    axes.imshow(image, cmap=blues(), norm=PowerNorm(0.6, 0, 1), interpolation="nearest")
    for head in range(H):
        at = head * step + (T - 1) / 2, -0.5
        axes.annotate(f"head {head + 1}", at, (0, 4), ha="center", **SMALL)
        for block in range(L):
            draw_edge(axes, head * step, block * step, T)
    size = min(8.5, 72 * cell * 0.85)
    names = [cut(name, 14) for name in look.labels] if size >= 4.5 else [""]
    away = (
        8 + max(map(len, names)) * size * 0.62
    )  # points: DejaVu's letters are 0.6 of their height
    for block in range(L):
        at = -0.5, block * step + (T - 1) / 2
        axes.annotate(
            f"block {block + 1}", at, (-away, 0), ha="right", va="center", rotation=90, **SMALL
        )
        name_rows(axes, names, block * step, size)
    for head in range(H):
        name_columns(axes, names, (head * step, len(image)), size)
    bare(axes)


def gap_of(cell: float) -> int:
    """Cells between two heads, about a sixth of an inch."""
    return max(1, round(0.16 / cell))


def draw_edge(axes: "Axes", left: int, top: int, T: int) -> None:
    """A thin frame around a head."""
    from matplotlib.patches import Rectangle

    style: dict[str, Any] = {"fill": False, "edgecolor": "#c9ced6", "lw": 0.8, "clip_on": False}
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), T, T, **style))


def name_rows(axes: "Axes", names: Sequence[str], top: int, size: float) -> None:
    """Tokens on the left of a block's heads."""
    for row, name in enumerate(names):
        axes.text(-0.9, top + row, name, ha="right", va="center", fontsize=size, **FONT)


def name_columns(axes: "Axes", names: Sequence[str], at: tuple[int, int], size: float) -> None:
    """Tokens below a head of the last block, from the bottom up."""
    left, below = at
    style: dict[str, Any] = {"ha": "center", "va": "top", "rotation": 90, "fontsize": size, **FONT}
    for column, name in enumerate(names):
        axes.text(left + column, below - 0.1, name, **style)


class Page:
    """A picture with axes placed in inches from its upper left corner."""

    def __init__(self, width: float, height: float, title: str) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")
        self.write(0.3, 0.4, title, fontsize=14, weight="bold", color=INK)

    def write(self, left: float, down: float, text: str, **style: Any) -> None:
        """Text whose line stands `down` inches below the top."""
        self.figure.text(left / self.width, 1 - down / self.height, text, parse_math=False, **style)

    def axes(self, left: float, down: float, width: float, height: float, title: str) -> "Axes":
        """Axes of a size, under a title."""
        self.write(left, down - 0.32, title, fontsize=10.5, weight="bold", color=INK)
        bottom = 1 - (down + height) / self.height
        size = width / self.width, height / self.height
        return self.figure.add_axes((left / self.width, bottom, *size))

    def save(self, path: str) -> None:
        """Write a PNG, whole or not at all."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        FigureCanvasAgg(self.figure)
        with replacing(path) as part:
            self.figure.savefig(part, format="png", dpi=120)


def draw(look: Look, title: str, path: str, top: int = 1) -> None:
    """Write all of it as one PNG: above the lens, losses, what comes next; below the heads."""
    L, H, T, _ = look.attention.shape
    lens = T * (0.24 + 0.15 * (top - 1))  # inches
    upper = max(lens, 2.4)
    cell = min(0.2, (WIDTH - 2) / (H * (T + 1)))
    step = cell * (T + gap_of(cell))
    page = Page(WIDTH, 1.6 + upper + 0.9 + L * step + 0.9, title)
    legend = "Blue is probability, or attention. A green edge: the guess came true. · is a blank."
    page.write(0.3, 0.68, legend, color=FAINT, fontsize=9)
    draw_lens(page.axes(1.3, 1.6, 5.4, lens, "logit lens: what it would say next"), look, top)
    draw_loss(page.axes(7.7, 1.6, 1.6, lens, "what came: loss in nats"), look)
    draw_next(page.axes(10.2, 1.6, 1.4, 2.4, "the next token"), look)
    heads = "attention: how much a token (row) takes from itself and those before it (columns)"
    draw_heads(page.axes(1.3, 2.5 + upper, H * step, L * step, heads), look, cell)
    page.save(path)
