"""Hugging Face's tokenizer.json with a unigram model: in and out."""

import json
import os
from collections.abc import Iterator
from operator import index
from typing import Any

from tok.bpe.pretokenize import PATTERNS
from tok.files import output_file
from tok.storage import read_model
from tok.unigram.normalize import MARK, Step
from tok.unigram.storage import Parts, add

BYTES = {f"<0x{b:02X}>": b for b in range(256)}


def read_hf(path: str | os.PathLike[str]) -> Parts:
    """The parts in a tokenizer.json. ValueError for a part of it that works otherwise than ours."""
    found, model = read_model(path, "give a whole tokenizer.json, or a .model file")
    if model.get("type", "Unigram") != "Unigram" or not isinstance(model.get("vocab"), list):
        raise ValueError(f"a tokenizer of kind {model.get('type')}; this reads Unigram")
    steps = list(normalizers(found.get("normalizer")))
    pattern, more = pre_tokenizer(found.get("pre_tokenizer"))
    if more or ["replace", " ", MARK] in steps:
        more.append(["metaspace", False])  # blanks are marks from here on, and so are ours
    specials = added(found.get("added_tokens") or [])
    unknown = model.get("unk_id")
    if unknown is not None:
        if not 0 <= index(unknown) < len(model["vocab"]):
            raise ValueError(f"unk_id={unknown}, but there are {len(model['vocab'])} pieces")
        name = str(model["vocab"][unknown][0])
        if model.get("byte_fallback") and name in BYTES:
            unknown = None  # as `save_hf` writes it: any character has bytes
        elif specials.setdefault(name, unknown) != unknown:
            raise ValueError(f"the token {name!r} has two ids; keep one of them")
    return pieces_of(model, specials, unknown, pattern, [*steps, *more])


def pieces_of(
    model: dict[str, Any],
    specials: dict[str, int],
    unknown: int | None,
    pattern: str,
    steps: list[Step],
) -> Parts:
    """The model's pieces. Special tokens and bytes in its list are no pieces of a text."""
    pieces: dict[str, tuple[int, float | None]] = {}
    byte_ids: list[int | None] = [None] * 256
    spelt, marked = bool(model.get("byte_fallback")), ["metaspace", False] in steps
    for i, (text, score) in enumerate(model["vocab"]):
        if text in specials:
            if specials[text] != i:
                raise ValueError(f"the token {text!r} has two ids; keep one of them")
        elif spelt and text in BYTES:
            byte_ids[BYTES[text]] = i
        else:
            add(pieces, text.replace(MARK, " ") if marked else text, i, float(score))
    if spelt:  # a piece that is one ASCII character never needs its byte
        for b in range(128):
            if byte_ids[b] is None and chr(b) in pieces:
                byte_ids[b] = pieces[chr(b)][0]
    return Parts(pieces, byte_ids, specials, unknown, pattern, steps)


def added(tokens: list[dict[str, Any]]) -> dict[str, int]:
    """Text -> id of the added tokens. ValueError for one that takes white space with it."""
    found: dict[str, int] = {}
    for token in tokens:
        text, i = str(token["content"]), index(token["id"])
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word"):
            raise ValueError(f"the token {text!r} takes white space with it")
        if found.setdefault(text, i) != i:
            raise ValueError(f"the token {text!r} has two ids; keep one of them")
    return found


def normalizers(given: dict[str, Any] | None) -> Iterator[Step]:
    """The steps of a `normalizer`. ValueError for one that ours has not."""
    if given is None:
        return
    kind = given.get("type")
    if kind == "Sequence":
        for part in given["normalizers"]:
            yield from normalizers(part)
    elif kind in ("NFC", "NFD", "NFKC", "NFKD"):
        yield ["unicode", kind]
    elif kind == "Lowercase":
        yield ["lowercase"]
    elif kind == "Strip":
        yield ["strip", bool(given["strip_left"]), bool(given["strip_right"])]
    elif kind == "Prepend":
        yield ["prepend", given["prepend"]]
    elif kind == "Replace" and "String" in given["pattern"]:
        yield ["replace", given["pattern"]["String"], given["content"]]
    elif kind == "Replace" and given["pattern"].get("Regex") == " {2,}":
        yield ["runs", " ", given["content"]]
    else:
        cure = "; take SentencePiece's .model file" if kind == "Precompiled" else ""
        raise ValueError(
            f"it normalizes texts by {kind} ({given.get('pattern')}), ours can't{cure}"
        )


def pre_tokenizer(given: dict[str, Any] | None) -> tuple[str, list[Step]]:
    """The pattern of a `pre_tokenizer`, and steps before it. ValueError for one ours has not."""
    if given is None:
        return "none", []
    parts = given["pretokenizers"] if given.get("type") == "Sequence" else [given]
    kinds = [part.get("type") for part in parts]
    if kinds == ["Split"] and whole(parts[0]):
        expression = parts[0]["pattern"]["Regex"]
        return next((name for name, e in PATTERNS.items() if e == expression), expression), []
    if kinds in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        last = parts[-1]
        scheme = last.get("prepend_scheme", "always")
        if not last.get("add_prefix_space", True):
            scheme = "never"
        if last.get("replacement") != MARK or scheme not in ("always", "never", "first"):
            raise ValueError(f"Metaspace with {last}; ours has the replacement {MARK}")
        if len(kinds) == 2 and scheme != "always":
            raise ValueError(f"WhitespaceSplit before Metaspace with prepend_scheme={scheme}")
        split = "metaspace" if last.get("split", True) else "none"
        return split, [["white_split"]] if len(kinds) == 2 else [["metaspace", scheme != "never"]]
    raise ValueError(f"it splits by {', '.join(map(str, kinds))}, which no pattern of ours does")


def whole(split: dict[str, Any]) -> bool:
    """Whether a Split's expression finds words, all of the text being kept."""
    isolated = split.get("behavior") == "Isolated" and not split.get("invert")
    return isolated and "Regex" in split.get("pattern", {})


def save_hf(path: str | os.PathLike[str], parts: Parts, expression: str, size: int) -> None:
    """Write tokenizer.json. ValueError for an imported tokenizer, which has its own already.

    `tokenizers` takes a text like "<0xE9>" for the byte, so a byte scores less than its letters do.
    """
    if parts.normalizer or parts.unknown is not None or None in parts.bytes:
        raise ValueError("only a tokenizer that was trained here can be written; keep the original")
    rows: list[list[Any]] = [["", 0.0] for _ in range(size)]
    lowest = min(score for _, score in parts.pieces.values() if score is not None)
    for text, b in BYTES.items():
        rows[b] = [text, 8 * min(lowest, -1.0)]
    for text, (i, score) in parts.pieces.items():
        rows[i] = [text, score]
    for text, i in parts.special_tokens.items():
        rows[i] = [text, 0.0]
    names = [text for text, _ in rows]
    if len(set(names)) < size:
        twice = next(text for text in names if names.count(text) > 1)
        raise ValueError(f"{twice!r} is a piece and a byte to others; rename it")
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": text, **plain, "special": True}
            for text, i in sorted(parts.special_tokens.items(), key=lambda s: s[1])
        ],
        "normalizer": None,
        "pre_tokenizer": {**split, "invert": False} if parts.pattern != "none" else None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": rows, "byte_fallback": True},
    }
    with output_file(path) as file:
        file.write(json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8"))
