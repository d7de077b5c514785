"""docs/learn.md: every exercise has its day, every section and command is there."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from utils.exercises.table import load

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "learn.md").read_text(encoding="utf-8")
DAYS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in TEXT.splitlines()
    if re.match(r"\| \d+ (○ )?\|", line)
]
COMMANDS = sorted(
    {c for c in re.findall(r"`([^`\n]+)`", TEXT) if c.startswith(("python ", "torchrun "))}
)


def test_days_are_six_weeks_of_seven():
    assert [int(day.split()[0]) for day, *_ in DAYS] == list(range(1, 43))
    assert all(len(row) == 5 and all(row) for row in DAYS)
    assert len(re.findall(r"^## Week \d \(slow: \d+ and \d+\)", TEXT, re.M)) == 6


def test_exercises_are_numbered_as_the_days_go():
    slugs = {row.slug for row in load()}
    found = [word for row in DAYS for word in row[-1].split(", ") if word in slugs]
    assert found == [row.slug for row in load()]


def test_sections_are_those_of_the_theory():
    """[t-5]: theory.md#5-... is the anchor that GitHub makes of the heading."""
    theory = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    heads = re.findall(r"^##+ (.+)$", theory, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
    defined = dict(re.findall(r"^\[(t-\w+)\]: theory\.md#(\S+)$", TEXT, re.M))
    assert set(defined.values()) <= anchors
    assert set(re.findall(r"\]\[(t-\w+)\]", TEXT)) == set(defined)


@cache
def help_of(*target):
    """What `python TARGET --help` says."""
    return subprocess.run(
        [sys.executable, *target, "--help"],
        cwd=ROOT, capture_output=True, encoding="utf-8", check=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_in_the_tables_have_their_flags(command):
    words = shlex.split(command.replace("torchrun --nproc_per_node=2 --", "python"))[1:]
    target = words[:2] if words[0] == "-m" else words[:1]
    if target[0] == "-m":
        path = ROOT / target[1].replace(".", "/")  # here, and not where it may be installed
        files = path.with_suffix(".py"), path / "__main__.py"
        assert any(f.exists() for f in files), f"{target[1]} is not in this checkout"
    rest = words[len(target) :]
    if target[-1] in ("tok.bpe", "utils.hub"):  # each of their actions has flags of its own
        target, rest = [*target, rest[0]], rest[1:]
    for flag in (word for word in rest if word.startswith("--")):
        assert flag in help_of(*target), command


def test_flags_beside_the_small_run_are_those_of_train():
    flags = set(re.findall(r"with `(--[^`]+)`", TEXT))
    assert len(flags) > 10
    for flag in (word for text in flags for word in text.split() if word.startswith("--")):
        assert flag in help_of("train.py"), flag
