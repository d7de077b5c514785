"""The suite's figures as a table for people, and as files for machines."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from data.skills import SKILLS
from tok.files import replacing
from utils.suite.position import Span
from utils.suite.rows import Row

Steps = Mapping[int, Sequence[Row]]  # rows of each step


def percent(p: float) -> str:
    """0.031 -> "3.1 %", 1.0 -> "100 %"."""
    return f"{100 * p:.3g} %" if p >= 0.001 or not p else "<0.1 %"


def interval(row: Row) -> str:
    """Rate and interval: "94.0 % (87.5 to 97.2)"."""
    return f"{100 * row.value:.1f} % ({100 * row.low:.1f} to {100 * row.high:.1f})"


def pick(rows: Sequence[Row], measure: str, name: str = "", level: int = 0) -> dict[str, Row]:
    """The rows of one measure of one thing, by whom they are of."""
    wanted = (measure, name, level)
    return {r.of: r for r in rows if (r.measure, r.name, r.level) == wanted}


def names_of(rows: Sequence[Row], measure: str) -> list[tuple[str, int]]:
    """What has this measure: (name, level), in order."""
    return list(dict.fromkeys((r.name, r.level) for r in rows if r.measure == measure))


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns of equal width, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for cells in (head, *lines):
        first, *others = map(str.ljust, cells[:1], widths)
        others = list(map(str.rjust, cells[1:], widths[1:]))
        yield "  ".join([first, *others]).rstrip()


def skills_table(rows: Sequence[Row]) -> Iterator[str]:
    """Right answers and nats of each skill and level, beside chance."""
    lines = []
    for name, level in names_of(rows, "exact"):
        exact, nats = (pick(rows, measure, name, level) for measure in ("exact", "nats"))
        line = [f"{name}, {level} {SKILLS[name].unit}", str(exact["model"].n)]
        line += [interval(exact["model"]), percent(exact["chance"].value)]
        lines.append([*line, *(f"{nats[of].value:.2f}" for of in ("model", "chance"))])
    yield from table(["skill", "tasks", "right (95 %)", "chance", "nats", "chance"], lines)


def repeat_table(rows: Sequence[Row]) -> Iterator[str]:
    """What random tokens cost the first and the second time."""
    lines = []
    for name, _ in names_of(rows, "repeat"):
        nats, again = pick(rows, "repeat", name), pick(rows, "again", name)
        right = interval(again["model"]) if again else ""
        half = nats["model"].high - nats["model"].value
        cost = f"{nats['model'].value:.2f} ± {half:.2f}"
        lines.append([name, cost, f"{nats['chance'].value:.2f}", right])
    yield from table(["random tokens twice", "nats a token", "chance", "right (95 %)"], lines)


def rules_table(rows: Sequence[Row]) -> Iterator[str]:
    """How many texts keep each rule: the model's, the validation text's, frequencies' of pairs."""
    lines = []
    for name, _ in names_of(rows, "rule"):
        of = pick(rows, "rule", name)
        lines.append([name, *(interval(of[who]) for who in ("model", "validation", "bigram"))])
    yield from table(["texts that keep", "model", "validation", "bigram"], lines)


TABLES = {"exact": skills_table, "repeat": repeat_table, "rule": rules_table}


def tables(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """All tables that have rows, and the notes."""
    parts = ["\n".join(make(rows)) for key, make in TABLES.items() if names_of(rows, key)]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def finite(x: float) -> float | None:
    """JSON has no NaN."""
    return x if math.isfinite(x) else None


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    numbers = ("value", "low", "high")
    return [asdict(r) | {name: finite(getattr(r, name)) for name in numbers} for r in rows]


def write_csv(path: Path, head: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    """Write a CSV, whole or not at all; NaN is empty."""
    with replacing(path) as part, open(part, "w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(head)
        for line in lines:
            writer.writerow("" if x != x else x for x in line)  # NaN alone is not itself


def write_steps(path: Path, steps: Steps) -> None:
    """suite.csv: a line a figure a step."""
    columns = [f.name for f in fields(Row)]
    lines = [[s, *(getattr(r, c) for c in columns)] for s, rows in steps.items() for r in rows]
    write_csv(path, ["step", *columns], lines)


def write_spans(path: Path, spans: Sequence[Span], bigram: float) -> None:
    """by_position.csv: a line a position."""
    lines = [[s.first, s.loss, s.se, s.windows, bigram] for s in spans]
    write_csv(path, ["position", "loss", "se", "windows", "bigram"], lines)


def spans_table(spans: Sequence[Span], bigram: float) -> str:
    """Loss by doubling positions, and what it gains on the bigram."""
    lines = [
        [s.name, f"{s.loss:.4f}", f"{s.se:.4f}", f"{s.loss - bigram:+.4f}", str(s.windows)]
        for s in spans
    ]
    head = ["position", "loss", "error", "to bigram", "windows"]
    return "\n".join(table(head, lines))
