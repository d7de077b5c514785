"""Scores as rows of a table: what eval.py prints and keeps."""

from collections.abc import Mapping

from utils.training.score import Score

Row = Mapping[str, float]
FORMS = {  # column: (its head, how wide, how a figure looks)
    "val_loss": ("val_loss", 10, ".4f"),
    "ppl": ("ppl", 10, ".2f"),
    "bits_per_byte": ("bits/byte", 11, ".4f"),
    "accuracy": ("accuracy", 10, ".1%"),
    "next_accuracy": ("next", 8, ".1%"),
}


def row(score: Score) -> Row:
    """val_loss, ppl, and what else it tells: bits_per_byte, or accuracy."""
    return {"val_loss": score.loss, "ppl": score.ppl, **score.figures}


def table(rows: Mapping[str, Row]) -> str:
    """The rows under each other; a figure that a row does not have is left out."""
    columns = [name for name in FORMS if any(name in row for row in rows.values())]
    lines = [" " * 12 + "".join(f"{FORMS[c][0]:>{FORMS[c][1]}}" for c in columns)]
    for name, row in rows.items():
        cells = (cell(row, c).rjust(FORMS[c][1]) for c in columns)
        lines.append(f"{name:12}{''.join(cells)}".rstrip())
    return "\n".join(lines)


def cell(row: Row, column: str) -> str:
    """A figure as it is shown, or nothing."""
    return format(row[column], FORMS[column][2]) if column in row else ""
