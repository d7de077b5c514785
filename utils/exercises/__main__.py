"""Write one function of ours yourself, and let our tests judge it.

    python -m utils.exercises list
    python -m utils.exercises start 16     # our file, one function emptied, in runs/exercises
    python -m utils.exercises check 16     # what the tests say of yours
    python -m utils.exercises hint 16      # a little, then more
    python -m utils.exercises answer 16    # ours
    python -m utils.exercises status       # what you have done

An exercise is named by its number or its slug, as in `start causal-mask`.
"""

import argparse
import ast
import hashlib
import itertools
import os
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from tok.cli import Parser, run
from tok.files import replacing
from utils.exercises.grade import LIMIT, Grade, grade
from utils.exercises.progress import EMPTY, Progress, now
from utils.exercises.source import ROOT, check_learners, ours
from utils.exercises.table import Exercise, find, load

COMMAND = "python -m utils.exercises"
FOLDER = Path("runs/exercises")
WIDTH = 96


def scratch(folder: Path, row: Exercise) -> Path:
    """Where a learner's file of an exercise is: runs/exercises/16-causal-mask/attention.py."""
    own = sorted(folder.glob(f"[0-9][0-9]-{row.slug}"))  # a later version may number otherwise
    new = folder / f"{row.number:02d}-{row.slug}"
    return (own[0] if own else new) / ours(row.slug)[0].name


def paragraph(label: str, text: str) -> str:
    """A labelled paragraph, indented and wrapped."""
    wrapper = textwrap.TextWrapper(WIDTH, break_on_hyphens=False, break_long_words=False)
    wrapper.initial_indent, wrapper.subsequent_indent = f"  {label:8}", " " * 10
    return wrapper.fill(text)


def heading(title: str) -> str:
    """A section of docs/theory.md with its number: "section 9, How do we forbid ...?"."""
    for line in (ROOT / "docs" / "theory.md").read_text(encoding="utf-8").splitlines():
        words = line.lstrip("# ")
        if line.startswith("#") and words.partition(". ")[2] == title:
            return f"section {words.partition('. ')[0]}, {title}"
    return title


def show_list(folder: Path) -> None:
    """Print every exercise, and what has become of it."""
    progress = Progress(folder)
    for row in load():
        entry = progress.of(row.slug)
        state = "passed" if entry["passed"] else "started" if entry["started"] else ""
        print(f"{row.number:3}  {state:8} {row.slug:22} {row.title}")


def start(folder: Path, row: Exercise, again: bool) -> None:
    """Copy our module with the function emptied, and say what to do."""
    path, (module, function) = scratch(folder, row), ours(row.slug)
    if path.exists() and not again:
        raise ValueError(f"{path} is there already; `start {row.number} --again` moves it aside")
    if path.parent.exists():
        numbered = (path.parent.with_name(f"{path.parent.name}-{n}") for n in itertools.count(1))
        aside = next(p for p in numbered if not p.exists())
        os.replace(path.parent, aside)
        print(f"your earlier work is in {aside}\n")
    path.parent.mkdir(parents=True)
    text = function.emptied(f"exercise {row.number}: {row.title}")
    with replacing(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    Progress(folder).note(row.slug, started=now(), sha256=sha256(function.text))
    tests = [test.split("::") for test in row.tests]
    names = [f"{file}: {', '.join(n for f, n in tests if f == file)}" for file in dict(tests)]
    print(f"E{str(row)[1:]}\n")
    print(paragraph("write", f"{function.name} in {path}, line {function.body + 1}"))
    print(paragraph("task", row.task))
    print(paragraph("read", f"docs/theory.md, {heading(row.theory)}; ours is of {module}"))
    print(paragraph("judges", "; ".join(names)))
    print(paragraph("then", f"{COMMAND} check {row.number} (or hint {row.number})"))


def sha256(text: str) -> str:
    """The hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def check(folder: Path, row: Exercise, limit: float, verbose: bool) -> int:
    """Let the tests judge the learner's file; 0 if they pass, else 1."""
    path, (module, function) = scratch(folder, row), ours(row.slug)
    if not path.is_file():
        raise ValueError(f"no {path}; begin with: {COMMAND} start {row.number}")
    check_learners(path, function.name)
    progress = Progress(folder)
    entry, began = progress.of(row.slug), time.perf_counter()
    found = grade(module, path.read_text(encoding="utf-8"), row.tests, limit)
    if verbose:
        print(found.output)
    print("\n".join(verdict(found, path, limit)))
    if entry["sha256"] not in ("", sha256(function.text)) and not found.passed:
        print(f"{module} has changed since you began; `start {row.number} --again` has the new one")
    done = {"attempts": entry["attempts"] + 1}
    if found.passed:
        done["passed"] = entry["passed"] or now()
        print(f"passed in {time.perf_counter() - began:.0f} s: {row}")
        print(f"compare with ours: {COMMAND} answer {row.number}")
    else:
        print(f"not yet: {COMMAND} hint {row.number}; all that the tests say: --verbose")
    progress.note(row.slug, **done)
    return 0 if found.passed else 1


def verdict(found: Grade, path: Path, limit: float) -> list[str]:
    """What the tests said, in plain words."""
    if found.unreadable:
        return [f"  the tests could not begin: {found.unreadable}"]
    lines = []
    for o in found.outcomes:
        file, name = o.test.split("::")
        runs = o.passed + o.failed + o.skipped
        count = f" ({o.failed} of {runs} cases)" if o.failed and runs > 1 else ""
        if o.test == found.stuck:
            lines.append(f"  no end  {name}: still running after {limit:g} s; an infinite loop?")
        elif o.failed:
            lines.append(f"  FAILED  {name}{count}")
            lines += [f"          {text}" for text in story(file, name, o.error, o.line, path)]
        else:
            lines.append(f"  {'passed' if o.passed else 'not run':8}{name}")
    if found.stuck and found.stuck not in [o.test for o in found.outcomes]:
        lines.append(f"  no end  {found.stuck}: still running after {limit:g} s")
    return lines


def story(file: str, name: str, error: str, line: int, path: Path) -> list[str]:
    """What a test is about, what went wrong, and where in the learner's file."""
    if error.startswith("NotImplementedError: exercise"):
        return ["it is still empty"]
    docs = [
        ast.get_docstring(node)
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    told = [doc.split("\n")[0] for doc in docs if doc]
    where = [f"at line {line} of {path}"] if line else [f"asked for in {file}"]
    return [*told, textwrap.shorten(error, 160, placeholder=" ..."), *where]


def hint(folder: Path, row: Exercise) -> None:
    """Print the hints seen before, and one more."""
    progress = Progress(folder)
    seen = min(progress.of(row.slug)["hints"] + 1, len(row.hints))
    for i, text in enumerate(row.hints[:seen], 1):
        print(paragraph(f"hint {i}", text))
    left = len(row.hints) - seen
    print(f"\n{left} more" if left else f"\nthat is all; ours: {COMMAND} answer {row.number}")
    progress.note(row.slug, hints=seen)


def answer(folder: Path, row: Exercise) -> None:
    """Print our function."""
    module, function = ours(row.slug)
    print(f"# {module}, line {function.start + 1}")
    print(function.source())
    progress = Progress(folder)
    if not progress.of(row.slug)["passed"]:
        progress.note(row.slug, answer=now())


def status(folder: Path) -> None:
    """Print what has been done: one line for each exercise that was touched."""
    rows, progress = load(), Progress(folder)
    touched = [row for row in rows if progress.of(row.slug) != EMPTY]
    for row in touched:
        entry = progress.of(row.slug)
        done = f"passed {entry['passed'][:10]}" if entry["passed"] else "open"
        line = f"{row.number:3}  {row.slug:22} {done:18} {entry['attempts']:2} attempts"
        line += f", {entry['hints']} hints" + (", answer seen" if entry["answer"] else "")
        print(line)
    passed = [row for row in rows if progress.of(row.slug)["passed"]]
    print(f"{len(passed)} of {len(rows)} passed" + (f"; {progress.path}" if touched else ""))
    if upcoming := [row for row in rows if row not in passed]:
        print(f"next: {COMMAND} start {upcoming[0].number}  ({upcoming[0].title})")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    p = Parser(prog=COMMAND, description=__doc__)
    p.add_argument("action", choices=["list", "start", "check", "hint", "answer", "status"])
    p.add_argument("exercise", nargs="?", help="a number or a slug")
    p.add_argument("--again", action="store_true", help="start anew; move earlier work aside")
    p.add_argument("--verbose", action="store_true", help="show all that the tests say")
    p.add_argument("--limit", type=float, default=LIMIT, help="seconds for the tests (%(default)g)")
    p.add_argument("--folder", type=Path, default=FOLDER, help="your work (%(default)s)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the action says. ValueError and OSError for what can't be done."""
    a = parser().parse_args(argv)
    if a.action in ("list", "status"):
        (show_list if a.action == "list" else status)(a.folder)
        return 0
    if a.exercise is None:
        raise ValueError(f"{a.action} which one? Give a number or a slug; `list` has them")
    if not a.limit > 0:
        raise ValueError(f"--limit {a.limit:g} must be above 0 seconds")
    row = find(a.exercise)
    if a.action == "check":
        return check(a.folder, row, a.limit, a.verbose)
    if a.action == "start":
        start(a.folder, row, a.again)
    else:
        (hint if a.action == "hint" else answer)(a.folder, row)
    return 0


if __name__ == "__main__":
    run(main)
