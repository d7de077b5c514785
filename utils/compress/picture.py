"""The table as a picture: perplexity against speed, and against size."""

from collections.abc import Sequence
from pathlib import Path

from tok.files import replacing

OURS, PEER = "#1f77b4", "#ff7f0e"


def points(head: Sequence[str], rows: Sequence[Sequence[str]], column: str) -> list[list[float]]:
    """(value, perplexity) of each row."""
    x, y = head.index(column), head.index("ppl")
    return [[float(row[x]), float(row[y])] for row in rows]


def draw_table(head: Sequence[str], rows: Sequence[Sequence[str]], path: Path) -> None:
    """Write a PNG of a table's rows. The first, what others are compared with, is a dotted line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    labels = {"tok/s": "tokens a second, one text", "MB": "MB of weights"}
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        found = points(head, rows, column)
        axes.axhline(found[0][1], color="grey", ls=":", lw=1)
        for i, (x, y) in enumerate(found[1:]):
            name = rows[i + 1][0]
            color = PEER if name.startswith("llama.cpp") else OURS
            axes.plot(x, y, "o", color=color)
            shift = (5, 5 if i % 2 else -11)
            axes.annotate(
                name, (x, y), xytext=shift, textcoords="offset points", color=color, fontsize=8
            )
        axes.set_xlabel(label)
        axes.margins(0.35, 0.15)
        axes.grid(alpha=0.2)
    panels[0].set_ylabel(f"perplexity (dotted: {rows[0][0]})")
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)
    plt.close(figure)
