"""Our tests against a learner's file: in a copy of the repository, where it stands for ours.

A copy needs no hooks: functions imported by name, and programs that a test starts, see it too.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.exercises.source import ROOMS, ROOT
from utils.exercises.watch import LIMIT as LAST
from utils.exercises.watch import OUT

ALSO = ("tests", "configs", "docs")
LEFT_OUT = ("prepared", "downloads", "shakespeare*", "wikitext2*")  # texts, which may be large
LIMIT = 60.0  # seconds for the tests of an exercise; ours take a third


@dataclass
class Outcome:
    """What one test function did, all its parameters together."""

    test: str  # tests/test_x.py::test_y
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    error: str = ""  # the first line of the first error
    line: int = 0  # where in the learner's file it was raised or passed through, 0 if nowhere


@dataclass
class Grade:
    """What the tests said. `passed` only if every one ran, and none failed."""

    outcomes: list[Outcome] = field(default_factory=list)
    unreadable: str = ""  # why the tests could not even begin
    stuck: str = ""  # the test that was under way when the time was up
    output: str = ""  # all that pytest wrote

    @property
    def passed(self) -> bool:
        """Whether the exercise is solved."""
        fine = [o.passed > 0 and not o.failed for o in self.outcomes]
        return bool(fine) and all(fine) and not (self.unreadable or self.stuck)


def copy_of_ours(to: Path) -> None:
    """Copy what the tests need; with times of change, so that compiled files stay valid."""
    if not (ROOT / "tests").is_dir():
        raise ValueError(f"{ROOT} has no tests/; exercises need a checkout of the repository")
    for folder in (*ROOMS, *ALSO):
        shutil.copytree(ROOT / folder, to / folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for file in (*ROOT.glob("*.py"), ROOT / "pyproject.toml"):
        shutil.copy2(file, to / file.name)


def grade(module: Path, text: str, tests: Sequence[str], limit: float = LIMIT) -> Grade:
    """Run tests, by their node ids, with `text` in the place of our file `module`."""
    with tempfile.TemporaryDirectory(prefix="llm-tiny-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder).resolve()
        copy_of_ours(copy)
        (copy / module).write_text(text, encoding="utf-8")
        for old in (copy / module.parent / "__pycache__").glob(f"{module.stem}.*"):
            old.unlink()
        out = copy / "watch.jsonl"
        out.touch()
        ended, output = run_pytest(copy, out, tests, limit)
        lines = out.read_text(encoding="utf-8").splitlines()
        # of a process that was killed while it wrote, the last line may be half a line
        events = [json.loads(line) for line in lines if line.endswith("}")]
        return judged(events, copy, module, tests, ended, output)


def run_pytest(copy: Path, out: Path, tests: Sequence[str], limit: float) -> tuple[bool, str]:
    """(whether pytest came to its end within `limit` seconds, what it wrote)."""
    own = {OUT: str(out), LAST: str(min(limit, 1e6) + 10)}  # later than we would end it
    env = os.environ | own | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    env = {name: value for name, value in env.items() if not name.startswith(("COV", "PYTEST"))}
    flags = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "utils.exercises.watch"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *flags, *tests],
        cwd=copy,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        return True, process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        end(process)
        return False, process.communicate()[0]
    except BaseException:  # Ctrl-C
        end(process)
        raise


def end(process: "subprocess.Popen[str]") -> None:
    """Kill a process and those that it started."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)


def judged(
    events: list[dict[str, Any]],
    copy: Path,
    module: Path,
    tests: Sequence[str],
    ended: bool,
    output: str,
) -> Grade:
    """A grade of what the plugin noted. Tests that never ran are there, without any outcome."""
    by_test = {test: Outcome(test) for test in tests}
    result = Grade(list(by_test.values()), output=output)
    for event in events:
        name, outcome = event["test"], event["outcome"]
        name = name if name in by_test else name.split("[")[0]  # with its parameters, or all of it
        if outcome == "unreadable":
            result.unreadable = result.unreadable or event["error"]
        elif outcome == "started":
            result.stuck = name
        elif name in by_test:
            note(by_test[name], event, copy, module)
            result.stuck = ""
    if ended:
        result.stuck = ""
        if not any(o.passed or o.failed or o.skipped for o in result.outcomes):
            last = output.strip().splitlines() or ["pytest wrote nothing"]
            result.unreadable = result.unreadable or last[-1]
    elif not result.stuck:
        begun = any(o.passed or o.failed or o.skipped for o in result.outcomes)
        result.stuck = "what comes between two tests" if begun else "the import of the module"
    return result


def note(outcome: Outcome, event: dict[str, Any], copy: Path, module: Path) -> None:
    """Add what one test did, with one of its parameters."""
    kind = event["outcome"]
    setattr(outcome, kind, getattr(outcome, kind) + 1)
    if kind == "failed" and not outcome.error:
        outcome.error = event.get("error", "")
        theirs = [line for path, line in event.get("calls", []) if copy / path == copy / module]
        outcome.line = theirs[-1] if theirs else 0
