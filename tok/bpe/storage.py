"""What a BPE tokenizer is made of, and its JSON.

[256, " ", "t"],        id 256 joins " " and "t"
[300, [195], [169]],    a part that is no text is a list of its bytes
"""

import os
from collections.abc import Collection, Iterable
from operator import index
from typing import NamedTuple

from tok.storage import VERSION, read, write_lines

KEYS = ("pattern", "vocab_size", "special_tokens", "bytes", "merges")


class Parts(NamedTuple):
    """The arguments of BPETokenizer; special tokens in a dict have their ids, too."""

    vocab: dict[int, bytes]
    merges: list[tuple[bytes, bytes]]
    special_tokens: dict[str, int]
    pattern: str


def complete(
    vocab: dict[int, bytes], made: Collection[bytes], specials: Iterable[bytes]
) -> dict[bytes, int]:
    """Give each special token an id in vocab, and return token -> id.

    ValueError unless each token is there once, and is what bytes and merges make, or special. A
    byte may be missing: other programs' vocabularies leave out some that no text has.
    """
    ids: dict[bytes, int] = {}
    for i, token in vocab.items():
        if ids.setdefault(token, i) != i:
            raise ValueError(f"ids {ids[token]} and {i} are both {token!r}; keep one of them")
    for token in specials:
        if token in made:
            raise ValueError(f"special token {token!r} is an ordinary token too; make it longer")
        vocab[ids.setdefault(token, max(vocab, default=-1) + 1)] = token
    if missing := [token for token in made if token not in ids and len(token) > 1]:
        raise ValueError(f"the vocabulary has no id for {missing[0]!r}; add it")
    if stray := ids.keys() - set(made) - set(specials):
        raise ValueError(f"no merge makes the token {min(stray)!r}; remove it, or call it special")
    if sorted(vocab) != list(range(len(vocab))):
        raise ValueError(f"the ids are not 0 to {len(vocab) - 1}, each once; number them so")
    return ids


def write_bpe(path: str | os.PathLike[str], parts: Parts) -> None:
    """Write a tokenizer file."""
    ids = {token: i for i, token in parts.vocab.items()}
    content = {
        "kind": "bpe",
        "version": VERSION,
        "pattern": parts.pattern,
        "vocab_size": len(parts.vocab),
        "special_tokens": parts.special_tokens,
        "bytes": [ids.get(bytes([i])) for i in range(256)],
        "merges": [[ids[a + b], as_json(a), as_json(b)] for a, b in parts.merges],
    }
    write_lines(path, content)


def read_bpe(path: str | os.PathLike[str]) -> Parts:
    """What `write_bpe` wrote. Any of several errors for another content: see `blame`."""
    found = read(path, "bpe", KEYS)
    merges = [(as_bytes(a), as_bytes(b)) for _, a, b in found["merges"]]
    tokens = [(i, bytes([b])) for b, i in enumerate(found["bytes"]) if i is not None]
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
    return Parts(vocab, merges, found["special_tokens"], found["pattern"])


def as_json(token: bytes) -> str | list[int]:
    """A token as text where it is text, else as a list of its bytes."""
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return list(token)


def as_bytes(found: str | list[int]) -> bytes:
    """What `as_json` gave, as bytes again."""
    return found.encode("utf-8") if isinstance(found, str) else bytes([*found])  # no bytes(10**12)
