"""What a unigram tokenizer is made of, and its JSON: one piece a line."""

import os
from collections.abc import Iterable
from math import isfinite
from operator import index
from typing import Any, NamedTuple

from tok.special import check_specials
from tok.storage import VERSION, read, write_lines
from tok.unigram.normalize import Step

KEYS = ("normalizer", "pattern", "vocab_size", "special_tokens", "unknown", "bytes", "pieces")


class Parts(NamedTuple):
    """The arguments of UnigramTokenizer.

    pieces: text -> (id, score in nats), None for a piece that is never taken; bytes: their ids, for
    characters without a piece, None where a byte has none; unknown: the id of such a character
    where there are no bytes; normalizer: steps before the split (see `normalize.py`).
    """

    pieces: dict[str, tuple[int, float | None]]
    bytes: list[int | None]
    special_tokens: dict[str, int]
    unknown: int | None
    pattern: str
    normalizer: list[Step]


def laid_out(pieces: dict[str, float], specials: Iterable[str], pattern: str) -> Parts:
    """Ids as we give them: 256 bytes, pieces in order, special tokens.

    A piece of one ASCII character is its byte.
    """
    ids: dict[str, tuple[int, float | None]] = {}
    i = 256
    for text, score in pieces.items():
        if len(text) == 1 and text.isascii():
            ids[text] = ord(text), score
        else:
            ids[text] = i, score
            i += 1
    return Parts(ids, [*range(256)], {s: i + k for k, s in enumerate(specials)}, None, pattern, [])


def vocabulary(parts: Parts) -> dict[int, bytes]:
    """Id -> bytes. ValueError for parts that are no tokenizer, with the piece that is wrong."""
    vocab: dict[int, bytes] = {}
    check_specials(parts.special_tokens)
    if len(parts.bytes) != 256:
        raise ValueError(f"{len(parts.bytes)} byte ids, not 256; give None for those missing")
    if not parts.pieces:
        raise ValueError("the vocabulary has no piece; give at least one")
    tokens = [(i, bytes([b])) for b, i in enumerate(parts.bytes) if i is not None]
    tokens += [(i, text.encode("utf-8")) for text, i in parts.special_tokens.items()]
    for text, (i, score) in parts.pieces.items():
        check_piece(text, score)
        if text in parts.special_tokens and parts.special_tokens[text] != i:
            raise ValueError(f"special token {text!r} is a piece too; make it longer")
        tokens.append((i, text.encode("utf-8")))
    for i, token in tokens:
        if vocab.setdefault(index(i), token) != token:
            raise ValueError(f"id {i} is both {vocab[i]!r} and {token!r}; number them anew")
    if sorted(vocab) != list(range(len(vocab))):
        raise ValueError(f"the ids are not 0 to {len(vocab) - 1}, each once; number them so")
    if parts.unknown is not None and parts.unknown not in parts.special_tokens.values():
        raise ValueError(f"unknown={parts.unknown} is no special token; name one")
    return dict(sorted(vocab.items()))


def check_piece(text: str, score: float | None) -> None:
    """ValueError for an empty piece, half a surrogate pair, or a score that can't be added."""
    if not isinstance(text, str) or not text:
        raise ValueError(f"piece {text!r} is not text; remove it")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError(f"piece {text!r} has half of a surrogate pair; remove it")
    if score is not None and not isfinite(score):
        raise ValueError(f"the score of {text!r} is {score}; give a finite log-probability")


def write_unigram(path: str | os.PathLike[str], parts: Parts, vocab_size: int) -> None:
    """Write a tokenizer file."""
    content = {
        "kind": "unigram",
        "version": VERSION,
        "normalizer": parts.normalizer,
        "pattern": parts.pattern,
        "vocab_size": vocab_size,
        "special_tokens": parts.special_tokens,
        "unknown": parts.unknown,
        "bytes": parts.bytes,
        "pieces": [[i, text, score] for text, (i, score) in parts.pieces.items()],
    }
    write_lines(path, content)


def read_unigram(path: str | os.PathLike[str]) -> tuple[Parts, int]:
    """What `write_unigram` wrote, and how many ids it promises.

    Any of several errors for another content: see `blame`.
    """
    found = read(path, "unigram", KEYS)
    pieces: dict[str, tuple[int, float | None]] = {}
    for i, text, score in found["pieces"]:
        add(pieces, text, index(i), score)
    byte_ids = [None if i is None else index(i) for i in found["bytes"]]
    specials = {text: index(i) for text, i in found["special_tokens"].items()}
    pattern, steps = found["pattern"], found["normalizer"]
    return Parts(pieces, byte_ids, specials, found["unknown"], pattern, steps), found["vocab_size"]


def add(pieces: dict[str, tuple[int, float | None]], text: str, i: int, score: Any) -> None:
    """Add a piece. ValueError for a text that is there already."""
    if text in pieces:
        raise ValueError(f"ids {pieces[text][0]} and {i} are both {text!r}; keep one of them")
    pieces[text] = i, None if score is None else float(score)
