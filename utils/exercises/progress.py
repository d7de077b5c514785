"""What a learner has done: log.json in the scratch folder, written whole or not at all."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from tok.files import replacing

VERSION = 1
NAME = "log.json"
EMPTY = {"started": "", "sha256": "", "hints": 0, "attempts": 0, "answer": "", "passed": ""}


def now() -> str:
    """The time to the second, as 2030-01-31T09:30:00+00:00."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


class Progress:
    """Entries by slug: when started, passed and answered, hints and attempts, our module's hash."""

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self.entries: dict[str, dict[str, Any]] = read(self.path) if self.path.exists() else {}

    def of(self, slug: str) -> dict[str, Any]:
        """The entry of an exercise; EMPTY for one that was never touched."""
        return {**EMPTY, **self.entries.get(slug, {})}

    def note(self, slug: str, **values: Any) -> None:
        """Change an entry and write the log."""
        self.entries[slug] = {**self.of(slug), **values}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"version": VERSION, "exercises": self.entries}
        with replacing(self.path) as temporary:
            Path(temporary).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a log. ValueError for a damaged one, or one of another version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, entries = content["version"], content["exercises"]
        if version != VERSION:
            raise ValueError(f"{path} has version {version}, this program reads {VERSION}")
        fits = all(type(e[key]) is type(EMPTY[key]) for e in entries.values() for key in EMPTY)
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
        fits = False
    if not fits:
        raise ValueError(f"{path} is damaged; move it away to begin a new one")
    return dict(entries)
