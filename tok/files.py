"""Files of the tokenizers: text in, JSON out. Whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any


def read_text(path: str | os.PathLike[str], *, keep_mark: bool = False) -> str:
    r"""A UTF-8 file as it is, "\r\n" included; a byte-order mark at its head is dropped.

    ValueError for bytes that are not UTF-8, with the offset of the first.
    """
    text = as_text(Path(path).read_bytes(), os.fspath(path))
    return text if keep_mark else text.removeprefix("\ufeff")


def as_text(data: bytes, name: str) -> str:
    """Decode UTF-8, or raise ValueError with the offset of the byte that is wrong."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise ValueError(
            f"{name}: not UTF-8 at byte {e.start} (0x{data[e.start]:02x}); "
            "save it as UTF-8, for example with iconv -f LATIN1 -t UTF-8"
        ) from None


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file by way of a temporary: a crash leaves the old file or the new one."""
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        Path(temporary).write_bytes(data)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A tokenizer file as a dict with `kind`; ValueError for anything that is not one of ours."""
    name = os.fspath(path)
    try:
        found = json.loads(as_text(Path(path).read_bytes(), name))
    except (json.JSONDecodeError, RecursionError) as e:
        raise ValueError(f"{name}: not a tokenizer file: malformed JSON ({e})") from None
    if not isinstance(found, dict) or "kind" not in found:
        raise ValueError(f"{name}: JSON, but not a tokenizer that llm-tiny saved (no 'kind')")
    return found


def check(found: dict[str, Any], kind: str, version: int, name: str) -> None:
    """ValueError unless a file is of this kind and this version."""
    if found["kind"] != kind:
        raise ValueError(f"{name}: kind is {found['kind']!r}, not {kind!r}; use tok.load")
    if found.get("version") != version:
        raise ValueError(f"{name}: version {found.get('version')!r}, not {version}; train it again")
