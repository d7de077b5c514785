"""SHA-256 of bytes, files and texts, remembered beside size and time of change."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from data.text import text_file, text_sha256
from tok.files import replacing

CACHE = Path(__file__).parent / "prepared"
FRESH = 2e9  # ns; the coarsest clock of a file system
BLOCK = 1 << 20  # bytes


def sha256(raw: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(raw).hexdigest()


def file_sha256(path: Path) -> str:
    """The same of a file, in bounded memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def clean_sha256(path: Path) -> str:
    """The hash of a text file's cleaned text."""
    return text_sha256(text_file(path))


def remembered(path: Path, find: Callable[[Path], str], *, keep: bool = True) -> str:
    """find(path), or what it gave when the file had this size and time of change.

    Kept in one JSON in the cache if `keep`, and if that can be written. A file that changed
    just now is not remembered: it may change again before the file system's clock has moved.
    """
    file, stat = CACHE / "hashes.json", path.stat()
    name, now = f"{find.__name__} {path.resolve()}", [stat.st_size, stat.st_mtime_ns]
    known = read_hashes(file)
    if known.get(name, [])[:2] == now:
        return known[name][2]
    found = find(path)
    if keep and time.time_ns() - stat.st_mtime_ns > FRESH:
        there = {k: v for k, v in read_hashes(file).items() if Path(k.partition(" ")[2]).exists()}
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as new:
                Path(new).write_text(json.dumps({**there, name: [*now, found]}), encoding="utf-8")
    return found


def read_hashes(path: Path) -> dict[str, list[Any]]:
    """Remembered hashes: name -> [size, mtime_ns, sha256]. Empty if the file is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = found.items() if isinstance(found, dict) else ()
        return {
            k: v for k, v in rows if isinstance(v, list) and list(map(type, v)) == [int, int, str]
        }
    except (OSError, ValueError):
        return {}
