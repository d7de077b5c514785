"""WordPiece vocabularies in files: BERT's vocab.txt, our JSON, Hugging Face's tokenizer.json."""

import json
import os
from collections.abc import Sequence
from operator import index
from typing import Any, NamedTuple

from tok.base import UNKNOWN
from tok.files import output_file, read_text
from tok.storage import VERSION, read, read_model, write_lines

START, END = "[CLS]", "[SEP]"
STANDARD = ("[PAD]", UNKNOWN, START, END, "[MASK]")  # special wherever a vocabulary has them
KEYS = ("lowercase", "strip_accents", "cjk", "max_word", "vocab_size", "special_tokens", "tokens")
HF_KEYS = {"clean_text", "handle_chinese_chars", "strip_accents", "lowercase", "type"}


class Parts(NamedTuple):
    """The arguments of WordPieceTokenizer; special tokens are those beside STANDARD, too."""

    vocab: list[str]
    special_tokens: list[str]
    lowercase: bool
    strip_accents: bool | None
    cjk: bool
    max_word: int


def check_vocab(vocab: Sequence[str], first: int = 0, row: str = "id") -> None:
    """ValueError, which names the rows, for a token that is empty or twice, or for no [UNK].

    Rows are numbered from `first`.
    """
    seen: dict[str, int] = {}
    for i, token in enumerate(vocab, first):
        if not isinstance(token, str) or not token:
            raise ValueError(f"{row} {i} is {token!r}, no token; give it a text")
        if seen.setdefault(token, i) != i:
            raise ValueError(f"{row}s {seen[token]} and {i} are both {token!r}; keep one of them")
    if UNKNOWN not in seen:
        raise ValueError(
            f"{row}s {first} to {first + len(vocab) - 1} have no {UNKNOWN}, which stands for words "
            "that can't be spelt; add it"
        )


def read_vocab(path: str | os.PathLike[str]) -> list[str]:
    """The tokens of a vocab.txt, one a line; the first line is id 0.

    ValueError with the lines' numbers, the first being 1, for one that is empty or twice.
    """
    lines = read_text(path).replace("\r\n", "\n").removesuffix("\n").split("\n")
    check_vocab(lines, 1, "line")
    return lines


def write_vocab(path: str | os.PathLike[str], vocab: Sequence[str]) -> None:
    """Write a vocab.txt. ValueError for a token with a line break."""
    for i, token in enumerate(vocab):
        if "\n" in token or token.endswith("\r"):
            raise ValueError(f"id {i} is {token!r}, which a line can't hold; save it as JSON")
    with output_file(path) as file:
        file.write("".join(f"{token}\n" for token in vocab).encode("utf-8"))


def write_wordpiece(
    path: str | os.PathLike[str], parts: Parts, special_tokens: dict[str, int]
) -> None:
    """Write a tokenizer file, one token a line."""
    content = {
        "kind": "wordpiece",
        "version": VERSION,
        "lowercase": parts.lowercase,
        "strip_accents": parts.strip_accents,
        "cjk": parts.cjk,
        "max_word": parts.max_word,
        "vocab_size": len(parts.vocab),
        "special_tokens": special_tokens,
        "tokens": parts.vocab,
    }
    write_lines(path, content)


def read_wordpiece(path: str | os.PathLike[str]) -> Parts:
    """What `write_wordpiece` wrote. Any of several errors for another content: see `blame`."""
    found = read(path, "wordpiece", KEYS)
    vocab, specials = found["tokens"], found["special_tokens"]
    if found["vocab_size"] != len(vocab):
        raise ValueError(f"{len(vocab)} tokens, not the {found['vocab_size']} promised")
    if any(vocab[i] != text for text, i in specials.items()):
        raise ValueError("the ids of special tokens are not those of the vocabulary")
    lowercase, strip_accents, cjk, max_word = (found[key] for key in KEYS[:4])
    return Parts(vocab, list(specials), lowercase, strip_accents, cjk, max_word)


def read_hf(path: str | os.PathLike[str]) -> Parts:
    """The parts in a tokenizer.json. ValueError for a part of it that works otherwise than ours."""
    found, model = read_model(path, "give BERT's vocab.txt, or a whole tokenizer.json")
    if (kind := model.get("type")) != "WordPiece":
        raise ValueError(f"no tokenizer.json of kind WordPiece, but of {kind}; use its own class")
    for key, wanted in ("unk_token", UNKNOWN), ("continuing_subword_prefix", "##"):
        if model.get(key) != wanted:
            raise ValueError(f"{key}={model.get(key)!r}, not {wanted!r}, which BERT has")
    if (found.get("pre_tokenizer") or {}).get("type") != "BertPreTokenizer":
        raise ValueError("it does not split by BertPreTokenizer, as BERT does")
    normalizer = found.get("normalizer") or {}
    if normalizer.keys() != HF_KEYS or not normalizer["clean_text"]:
        raise ValueError("its normalizer is not a BertNormalizer that cleans texts, as BERT's is")
    vocab, specials = with_added({i: t for t, i in model["vocab"].items()}, found["added_tokens"])
    how = normalizer["lowercase"], normalizer["strip_accents"], normalizer["handle_chinese_chars"]
    return Parts(vocab, specials, *how, index(model["max_input_chars_per_word"]))


def with_added(ids: dict[int, str], added: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """(The vocabulary by id, its special tokens) from a tokenizer.json's two lists."""
    specials = []
    for token in added:
        text, i = token["content"], index(token["id"])
        if any(token.get(key) for key in ("lstrip", "rstrip", "single_word")):
            raise ValueError(f"the token {text!r} takes white space with it")
        if ids.setdefault(i, text) != text:
            raise ValueError(f"id {i} is both {ids[i]!r} and {text!r}; keep one of them")
        specials.append(text)
    if sorted(ids) != list(range(len(ids))):
        raise ValueError(f"the ids are not 0 to {len(ids) - 1}, each once; number them so")
    return [ids[i] for i in range(len(ids))], specials


def save_hf(path: str | os.PathLike[str], parts: Parts, special_tokens: dict[str, int]) -> None:
    """Write tokenizer.json, which puts [CLS] and [SEP] around texts; needs no package."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": text, **flags, "special": True}
            for text, i in sorted(special_tokens.items(), key=lambda item: item[1])
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": parts.cjk,
            "strip_accents": parts.strip_accents,
            "lowercase": parts.lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": around(special_tokens),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": parts.max_word,
            "vocab": {token: i for i, token in enumerate(parts.vocab)},
        },
    }
    with output_file(path) as file:
        file.write(json.dumps(whole, ensure_ascii=False, indent=1).encode("utf-8"))


def around(special_tokens: dict[str, int]) -> dict[str, Any] | None:
    """The post-processor that writes [CLS] a [SEP] b [SEP]; none without these two."""
    if not {START, END} <= special_tokens.keys():
        return None
    return {
        "type": "BertProcessing",
        "sep": [END, special_tokens[END]],
        "cls": [START, special_tokens[START]],
    }
