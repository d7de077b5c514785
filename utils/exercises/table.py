"""The exercises, as table.yaml declares them: each has all that is said of it in one place."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from tok.cli import unknown_name

TABLE = Path(__file__).with_name("table.yaml")
VERSION = 1


@dataclass(frozen=True)
class Exercise:
    """One row of the table. Its function is where `# exercise: SLUG` stands in the source."""

    number: int  # its position in the table, from 1
    slug: str
    title: str
    task: str
    theory: str  # the title of a section of docs/theory.md, without its number
    tests: tuple[str, ...]  # pytest node ids: tests/test_x.py::test_y
    hints: tuple[str, ...]  # up to three, each says more
    wrong: tuple[str, str]  # what a plausible mistake puts in the place of what

    def __str__(self) -> str:
        return f"exercise {self.number}, {self.title[0].lower()}{self.title[1:]} ({self.slug})"


def load() -> list[Exercise]:
    """Read the table. ValueError for a row that lacks something or has too much."""
    found = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    if found["version"] != VERSION:
        raise ValueError(f"{TABLE} has version {found['version']}, this program reads {VERSION}")
    return [exercise(number, row) for number, row in enumerate(found["exercises"], 1)]


def exercise(number: int, row: dict[str, Any]) -> Exercise:
    """One row; a test's node id without a file is in the file of the one before."""
    wanted = {f.name for f in fields(Exercise)} - {"number"}
    if odd := sorted(wanted ^ row.keys()):
        raise ValueError(f"{TABLE}, exercise {number}: {odd[0]!r} is missing, or has no meaning")
    tests: list[str] = []
    for name in row["tests"]:
        tests.append(name if "::" in name else f"{tests[-1].split('::')[0]}::{name}")
    old, new = row["wrong"]
    texts = {name: " ".join(row[name].split()) for name in ("slug", "title", "task", "theory")}
    hints = tuple(" ".join(hint.split()) for hint in row["hints"])
    return Exercise(number, tests=tuple(tests), hints=hints, wrong=(old, new), **texts)


def find(name: str) -> Exercise:
    """The exercise of a number or slug. ValueError for any other, with the nearest."""
    rows = load()
    for row in rows:
        if name == row.slug or (name.isdecimal() and int(name) == row.number):
            return row
    if name.lstrip("-").isdecimal():
        raise ValueError(f"there is no exercise {name}; they are 1 to {len(rows)}: see `list`")
    raise ValueError(unknown_name("exercise", name, [row.slug for row in rows]))
