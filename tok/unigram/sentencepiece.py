"""SentencePiece's .model file -> the parts of a tokenizer that cuts texts as SentencePiece does."""

import os
import struct
from base64 import b64encode
from pathlib import Path
from typing import Any

from tok.unigram.charsmap import CharsMap
from tok.unigram.normalize import MARK, Step
from tok.unigram.protobuf import message
from tok.unigram.storage import Parts, add

VARINT, BYTES, FOUR = 0, 2, 5  # wire types
MODEL = {1: BYTES, 2: BYTES, 3: BYTES, 5: BYTES}  # pieces, trainer, normalizer, denormalizer
PIECE = {1: BYTES, 2: FOUR, 3: VARINT}  # text, score, type
TRAINER = {3: VARINT, 24: VARINT, 35: VARINT}  # model type, blank as suffix, byte fallback
NORMALIZER = {2: BYTES, 3: VARINT, 4: VARINT, 5: VARINT}  # rules, prefix, collapse, blank as mark
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


def read_sentencepiece(path: str | os.PathLike[str]) -> Parts:
    """The parts in a .model file. ValueError for a model that is damaged, or works otherwise."""
    found = message(Path(path).read_bytes(), MODEL)
    if not found[1]:
        raise ValueError("no piece in it: not a SentencePiece model")
    trainer = message(joined(found[2]), TRAINER)
    kind = last(trainer[3], 1)
    if kind != 1:
        raise ValueError(f"a model of kind {TYPES.get(kind, kind)}; only unigram can be read")
    if last(trainer[24], 0):
        raise ValueError("it writes blanks after words (treat_whitespace_as_suffix); ours can't")
    if last(message(joined(found[5]), NORMALIZER)[2], b""):
        raise ValueError("it changes texts as it decodes (denormalizer); ours can't")
    rows = [read_piece(data, i) for i, data in enumerate(found[1])]
    return assemble(rows, bool(last(trainer[35], 0)), message(joined(found[3]), NORMALIZER))


def joined(messages: list[Any]) -> bytes:
    """Parts of one message: later ones complete earlier ones."""
    return b"".join(messages)


def last(values: list[Any], default: Any) -> Any:
    """The value that counts, if a field is there several times."""
    return values[-1] if values else default


def read_piece(data: Any, i: int) -> tuple[str, float, int]:
    """Text, score and type of a piece."""
    try:
        found = message(data, PIECE)
        text = last(found[1], b"").decode("utf-8")
    except ValueError as e:
        raise ValueError(f"piece {i}: {e}") from None
    kind = last(found[3], NORMAL)
    if not NORMAL <= kind <= BYTE:
        raise ValueError(f"piece {i} ({text!r}) is of unknown type {kind}")
    return text, struct.unpack("<f", last(found[2], bytes(4)))[0], kind


def assemble(rows: list[tuple[str, float, int]], spelt: bool, normalizer: dict[int, Any]) -> Parts:
    """Ids are positions. Control pieces are special tokens, and so is the unknown one."""
    pieces: dict[str, tuple[int, float | None]] = {}
    byte_ids: list[int | None] = [None] * 256
    specials: dict[str, int] = {}
    unknown = [i for i, (_, _, kind) in enumerate(rows) if kind == UNKNOWN]
    if len(unknown) != 1:
        raise ValueError(f"{len(unknown)} pieces for unknown characters, not one")
    for i, (text, score, kind) in enumerate(rows):
        if kind in (UNKNOWN, CONTROL):
            if text in specials:
                raise ValueError(f"ids {specials[text]} and {i} are both {text!r}; keep one")
            specials[text] = i
        elif kind == BYTE:
            byte_ids[byte_of(text)] = i
        else:
            if kind == USER:  # a bonus, so that it is taken wherever it stands (version 0.2.3)
                score = 0.1 * (len(text.encode("utf-8")) - 1)
            add(pieces, text.replace(MARK, " "), i, None if kind == UNUSED else score)
    if (spelt and None in byte_ids) or (not spelt and any(i is not None for i in byte_ids)):
        raise ValueError(f"byte_fallback={spelt}, but it has {256 - byte_ids.count(None)} bytes")
    kept = [text for text, _, kind in rows if kind == USER]
    steps = steps_of(normalizer, kept)
    crossing = any(" " in text[1:] for text in pieces)
    return Parts(pieces, byte_ids, specials, unknown[0], "none" if crossing else "metaspace", steps)


def byte_of(text: str) -> int:
    """ "<0x0A>" -> 10. ValueError for other texts."""
    for b in range(256):
        if text == f"<0x{b:02X}>":
            return b
    raise ValueError(f"{text!r} is no byte; it should be like <0x0A>")


def steps_of(normalizer: dict[int, Any], kept: list[str]) -> list[Step]:
    """The normalizer's steps: rules, then blanks; `kept` are texts that no rule touches."""
    if not last(normalizer[5], 1):
        raise ValueError("it does not write blanks as ▁ (escape_whitespaces); ours can't")
    rules, blanks = last(normalizer[2], b""), [last(normalizer[n], 1) != 0 for n in (3, 4)]
    steps: list[Step] = []
    if rules:
        CharsMap(rules)  # ValueError now, not when a text comes
        steps = [["charsmap", b64encode(rules).decode("ascii"), kept]]
    return [*steps, ["blanks", *blanks]]
