"""A plugin for pytest: what each test did, one JSON object a line, for `utils.exercises.grade`.

It is loaded by `-p utils.exercises.watch` and knows pytest, not the exercises.
"""

import json
import os
import threading
from typing import Any

OUT = "LLM_TINY_WATCH"  # the environment variable that names the file to write
LIMIT = "LLM_TINY_WATCH_LIMIT"  # and the one with the seconds after which this process ends itself


def say(**what: Any) -> None:
    """Write a line at once: a test that never ends has been named by then."""
    with open(os.environ[OUT], "a", encoding="utf-8") as file:
        file.write(json.dumps(what) + "\n")


def pytest_configure() -> None:
    """End if the process that waits for us was killed; let hypothesis try the same each time."""
    end = threading.Timer(float(os.environ[LIMIT]), os._exit, [1])
    end.daemon = True
    end.start()
    try:
        from hypothesis import settings
    except ImportError:
        return
    same = settings(deadline=None, derandomize=True, database=None, report_multiple_bugs=False)
    settings.register_profile("exercises", same)
    settings.load_profile("exercises")


def pytest_runtest_logstart(nodeid: str) -> None:
    """A test begins."""
    say(test=nodeid, outcome="started")


def pytest_collectreport(report: Any) -> None:
    """A file of tests that can't be read, for example since a module of ours can't be imported."""
    if report.failed:
        error = str(report.longrepr).strip().splitlines()[-1].removeprefix("E").strip()
        say(test=report.nodeid, outcome="unreadable", error=error)


def pytest_runtest_logreport(report: Any) -> None:
    """A test has ended, or one of its fixtures."""
    if report.when == "call" or not report.passed:
        say(test=report.nodeid, outcome=report.outcome, **whereabouts(report))


def whereabouts(report: Any) -> dict[str, Any]:
    """The first line of an error, and (file, line) of each call that led to it."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return {}
    calls = [
        (entry.reprfileloc.path, entry.reprfileloc.lineno)
        for entry in report.longrepr.reprtraceback.reprentries
        if getattr(entry, "reprfileloc", None)
    ]
    return {"error": crash.message.strip().split("\n")[0], "calls": calls}
