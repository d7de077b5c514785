"""Tokenizers as JSON that a person can read: kind, settings, one merge a line, checksum."""

import errno
import hashlib
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from tok.files import as_text, output_file, read_text

VERSION = 1
COMMON = ("kind", "version", "sha256")
ROWS = ("merges", "tokens", "pieces")  # lists that are written one item a line


def as_lines(content: dict[str, Any]) -> bytes:
    """JSON, one key a line, and one merge, token or piece a line."""
    lines = []
    for key, value in content.items():
        if key in ROWS:
            shown = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in value) + "\n]"
        else:
            shown = json.dumps(value, ensure_ascii=False)
        lines.append(f"{json.dumps(key)}: {shown}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("utf-8")


def checksum(content: dict[str, Any]) -> str:
    """SHA-256 of the content as lines, a checksum in it left out."""
    lines = as_lines({key: value for key, value in content.items() if key != "sha256"})
    return hashlib.sha256(lines).hexdigest()


@contextmanager
def blame(path: str | os.PathLike[str], cure: str = "train it again") -> Iterator[None]:
    """Turn whatever a wrong file leads to into a ValueError that names the file."""
    name = os.fspath(path)
    try:
        yield
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise ValueError(f"{name}: damaged ({type(e).__name__}: {e}); {cure}") from None
    except ValueError as e:
        raise ValueError(str(e) if str(e).startswith(name) else f"{name}: {e}") from None


def read_kind(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A tokenizer file as a dict with `kind`. ValueError for anything that is not one of ours."""
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            text = as_text(file.read(), name)
    except FileNotFoundError:
        cure = "no such file; make a tokenizer with python -m tok.bpe train"
        raise FileNotFoundError(errno.ENOENT, cure, name) from None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{name}: not a tokenizer: malformed JSON ({e}); train it again") from None
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        raise ValueError(f"{name}: a tokenizer.json of Hugging Face; load it with `tokenizers`")
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        raise ValueError(f"{name}: JSON, but no tokenizer of llm-tiny (no 'kind'); train one")
    return found


def read(path: str | os.PathLike[str], kind: str, keys: Collection[str]) -> dict[str, Any]:
    """The same for one kind and this version, with these keys, unchanged since it was saved."""
    name, found = os.fspath(path), read_kind(path)
    if found["kind"] != kind:
        raise ValueError(f"{name}: kind is {found['kind']!r}, not {kind!r}; use tok.load")
    if found.get("version") != VERSION:
        raise ValueError(f"{name}: version {found.get('version')!r}, not {VERSION}; train it again")
    if odd := set(keys) ^ (set(found) - set(COMMON)):
        raise ValueError(f"{name}: damaged (missing or unknown: {sorted(odd)}); train it again")
    if "sha256" in found and found["sha256"] != checksum(found):  # older files have none
        raise ValueError(f"{name}: damaged (not the contents that were saved); bring back a copy")
    return found


def fingerprint(path: str | os.PathLike[str]) -> str:
    """What tells a tokenizer file from others: the SHA-256 of its lines without the checksum.

    For a file of version 0.1.0, which has no checksum, it is the SHA-256 of the whole file.
    """
    with blame(path):
        return checksum(read_kind(path))


def write_lines(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write the content and its checksum."""
    with output_file(path) as file:
        file.write(as_lines(content | {"sha256": checksum(content)}))


def read_model(path: str | os.PathLike[str], cure: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hugging Face's tokenizer.json, and its `model`. ValueError, with a cure, for another file."""
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"malformed JSON ({e}); bring back a whole tokenizer.json") from None
    model = found.get("model") if isinstance(found, dict) else None
    if not isinstance(model, dict):
        raise ValueError(f"no tokenizer.json (no 'model'); {cure}")
    return found, model
