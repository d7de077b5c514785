"""Tokenizers as JSON that a person can read: version, settings, then one merge a line.

[256, " ", "t"],        id 256 joins " " and "t"
[300, [195], [169]],    a part that is no text is a list of its bytes
"""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import index
from typing import Any

from tok.files import as_text, write_whole

VERSION = 1


@contextmanager
def blame(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever a wrong file leads to into a ValueError that names the file."""
    name = os.fspath(path)
    try:
        yield
    except (KeyError, TypeError, AttributeError, OverflowError) as e:
        raise ValueError(f"{name}: damaged ({type(e).__name__}: {e}); train it again") from None
    except ValueError as e:
        raise ValueError(str(e) if str(e).startswith(name) else f"{name}: {e}") from None


def read_kind(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A tokenizer file as a dict with `kind`. ValueError for anything that is not one of ours."""
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            found = json.loads(as_text(file.read(), name))
    except FileNotFoundError:
        cure = "no such file; make a tokenizer with python -m tok.bpe train"
        raise FileNotFoundError(errno.ENOENT, cure, name) from None
    except (json.JSONDecodeError, RecursionError) as e:
        raise ValueError(f"{name}: not a tokenizer: malformed JSON ({e}); train it again") from None
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        raise ValueError(f"{name}: a tokenizer.json of Hugging Face; load it with `tokenizers`")
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        raise ValueError(f"{name}: JSON, but no tokenizer of llm-tiny (no 'kind'); train one")
    return found


def read(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """The same for one kind and this version."""
    name, found = os.fspath(path), read_kind(path)
    if found["kind"] != kind:
        raise ValueError(f"{name}: kind is {found['kind']!r}, not {kind!r}; use tok.load")
    if found.get("version") != VERSION:
        raise ValueError(f"{name}: version {found.get('version')!r}, not {VERSION}; train it again")
    return found


def write_bpe(
    path: str | os.PathLike[str],
    vocab: dict[int, bytes],
    merges: Iterable[tuple[bytes, bytes]],
    specials: dict[str, int],
    pattern: str,
) -> None:
    """Write a BPETokenizer."""
    ids = {token: i for i, token in vocab.items()}
    head = {
        "kind": "bpe",
        "version": VERSION,
        "pattern": pattern,
        "vocab_size": len(vocab),
        "special_tokens": specials,
        "bytes": [ids[bytes([i])] for i in range(256)],
    }
    write_lines(path, head, ([ids[a + b], shown(a), shown(b)] for a, b in merges))


def read_bpe(
    path: str | os.PathLike[str],
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]], list[str], str]:
    """What a BPETokenizer is made of."""
    found = read(path, "bpe")
    merges = [(as_bytes(a), as_bytes(b)) for _, a, b in found["merges"]]
    tokens = [(i, bytes([b])) for b, i in enumerate(found["bytes"])]
    tokens += [(row[0], a + b) for row, (a, b) in zip(found["merges"], merges, strict=True)]
    tokens += [(i, text.encode("utf-8")) for text, i in found["special_tokens"].items()]
    vocab: dict[int, bytes] = {}
    for i, token in tokens:
        if vocab.setdefault(index(i), token) != token:
            raise ValueError(f"id {i} is both {vocab[i]!r} and {token!r}; train it again")
    if found["vocab_size"] != len(vocab):
        raise ValueError(
            f"{len(vocab)} tokens, not the {found['vocab_size']} promised; train it again"
        )
    return vocab, merges, list(found["special_tokens"]), found["pattern"]


def write_lines(
    path: str | os.PathLike[str], head: dict[str, Any], merges: Iterable[Any] | None = None
) -> None:
    """Write JSON, one key a line and one merge a line."""
    lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in head.items()]
    if merges is not None:
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in merges)
        lines.append(f'"merges": [\n{rows}\n]')
    write_whole(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode("utf-8"))


def shown(token: bytes) -> str | list[int]:
    """A token as text where it is text, else as a list of its bytes."""
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return list(token)


def as_bytes(found: str | list[int]) -> bytes:
    """What `shown` gave, as bytes again."""
    return found.encode("utf-8") if isinstance(found, str) else bytes(found)
