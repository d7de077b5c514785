"""The formats of other tokenizers: GPT-2's files in, tiktoken and Hugging Face's tokenizers out."""

import json
import os
import re
from collections.abc import Mapping
from operator import index
from typing import Any

from tok.bpe.merges import MergeTable
from tok.bpe.pretokenize import PATTERNS
from tok.bpe.storage import Parts
from tok.files import output_file, read_text
from tok.storage import read_model

PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
LETTER = {b: chr(b) for b in PRINTED} | {
    b: chr(256 + i) for i, b in enumerate(sorted(set(range(256)) - set(PRINTED)))
}  # GPT-2 writes each byte as one visible character: the blank is "Ġ", the newline "Ċ"
BYTE = {letter: b for b, letter in LETTER.items()}


def spelt(token: bytes) -> str:
    """A token in GPT-2's letters: b" the" -> "Ġthe"."""
    return "".join(map(LETTER.__getitem__, token))


def unspelt(text: str) -> bytes:
    """GPT-2's letters as bytes again. ValueError for a character that stands for no byte."""
    try:
        return bytes(map(BYTE.__getitem__, text))
    except KeyError as e:
        raise ValueError(f"{text!r} has {e.args[0]!r}, which GPT-2 writes for no byte") from None


def read_gpt2(
    vocab: str | os.PathLike[str], merges: str | os.PathLike[str]
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]], list[str]]:
    """Vocabulary, merges and special tokens (those that no merge makes) from GPT-2's two files."""
    names = os.fspath(vocab), os.fspath(merges)
    text = read_text(vocab)
    try:
        found = json.loads(text)
        ids = {token: int(i) for token, i in found.items()}
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError) as e:
        raise ValueError(f"{names[0]}: not a vocab.json, token -> id ({e})") from None
    pairs = []
    for n, line in enumerate(read_text(merges).split("\n")):
        if not line.strip() or (n == 0 and line.startswith("#version")):
            continue
        parts = line.split()
        if len(parts) != 2:
            raise ValueError(f"{names[1]}: line {n + 1} is {line!r}, not two tokens")
        pairs.append((parts[0], parts[1]))
    made = {a + b for a, b in pairs} | set(BYTE)
    specials = [token for token in ids if token not in made]
    tokens = {i: s.encode() if s in specials else unspelt(s) for s, i in ids.items()}
    return tokens, [(unspelt(a), unspelt(b)) for a, b in pairs], specials


def made_by(
    ids: dict[str, int], merges: list[tuple[str, str]], specials: dict[str, int], pattern: str
) -> Parts:
    """A tokenizer's parts from tokens and merges in GPT-2's letters, special tokens as texts."""
    vocab = {i: unspelt(token) for token, i in ids.items() if token not in specials}
    vocab |= {i: text.encode("utf-8") for text, i in specials.items()}
    return Parts(vocab, [(unspelt(a), unspelt(b)) for a, b in merges], specials, pattern)


def read_hf(path: str | os.PathLike[str]) -> Parts:
    """The parts in a tokenizer.json. ValueError for a part of it that works otherwise than ours."""
    found, model = read_model(path, "a vocab.json needs its MERGES.txt beside")
    if model.get("type", "BPE") != "BPE" or "merges" not in model:
        raise ValueError(
            f"a tokenizer of kind {model.get('type')}; only byte-level BPE can be read"
        )
    for key in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise ValueError(
                f"{key}={model[key]!r} can't be said by a byte-level tokenizer of ours"
            )
    normalizer = found.get("normalizer")
    if normalizer and normalizer != {"type": "Sequence", "normalizers": []}:
        kind = normalizer.get("type")
        raise ValueError(f"it normalizes texts ({kind}), so that they don't come back as they were")
    if model.get("byte_fallback"):
        raise ValueError("byte_fallback, as SentencePiece has it; only byte-level BPE can be read")
    pattern = pattern_of(found.get("pre_tokenizer") or {})
    ids = {str(token): index(i) for token, i in model["vocab"].items()}
    merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
    if any(len(m) != 2 for m in merges):
        raise ValueError("a merge is not of two tokens")
    specials: dict[str, int] = {}
    for token in found.get("added_tokens") or []:
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word"):
            raise ValueError(f"the token {token['content']!r} takes white space with it")
        text, i = token["content"], index(token["id"])
        if specials.setdefault(text, i) != i or ids.get(text, i) != i:
            raise ValueError(f"the token {text!r} has two ids; keep one of them")
    if model.get("ignore_merges"):
        parts = made_by(ids, merges, specials, pattern)
        check_ignored_merges(parts)
        return parts
    return made_by(ids, merges, specials, pattern)


def check_ignored_merges(parts: Parts) -> None:
    """ValueError for a token that merges don't make of its bytes: ignore_merges takes it."""
    table = MergeTable(parts.merges)
    specials = set(parts.special_tokens.values())
    for i, token in parts.vocab.items():
        if i not in specials and len(table.join(token.decode("latin-1"))) != 1:
            raise ValueError(f"ignore_merges finds {spelt(token)!r}, which the merges don't make")


def pattern_of(pre: dict[str, Any]) -> str:
    """The pattern of a `pre_tokenizer`. ValueError for one that is none of ours."""
    steps = pre.get("pretokenizers", [pre])
    kinds = [step.get("type") for step in steps]
    if not kinds or kinds[-1] != "ByteLevel":
        raise ValueError(f"it splits by {kinds}, not at the end by ByteLevel")
    if steps[-1].get("add_prefix_space"):
        raise ValueError("add_prefix_space puts a blank before a text; it would not come back")
    own = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"]:
        return "gpt2" if own else "none"
    if kinds == ["Digits", "ByteLevel"] and own and steps[0].get("individual_digits"):
        return "gpt2_digits"
    if kinds == ["Split", "ByteLevel"] and not own and is_whole(steps[0]):
        expression = steps[0]["pattern"]["Regex"]
        named = [name for name, known in PATTERNS.items() if known == expression]
        return named[0] if named else str(expression)
    raise ValueError(f"it splits by {', '.join(map(str, kinds))}, which no pattern of ours does")


def is_whole(split: dict[str, Any]) -> bool:
    """Whether a Split's expression finds words, all of the text being kept."""
    known = "Regex" in split.get("pattern", {})
    return known and split.get("behavior") == "Isolated" and not split.get("invert")


def to_tiktoken(parts: Parts, expression: str, sound: bool, name: str) -> Any:
    """A tiktoken.Encoding. It joins by bytes, not by merges, so the merges must be sound."""
    import tiktoken

    if not sound:
        raise ValueError("two merges spell the same bytes, which tiktoken can't tell; use save_hf")
    specials = set(parts.special_tokens.values())
    ranks = {token: i for i, token in parts.vocab.items() if i not in specials}
    order = [ranks[a + b] for a, b in parts.merges]
    if order != sorted(order):
        raise ValueError("ids do not rise with the merges, as tiktoken needs; use save_hf")
    return tiktoken.Encoding(
        name, pat_str=expression, mergeable_ranks=ranks, special_tokens=parts.special_tokens
    )


def spellings(vocab: Mapping[int, bytes], specials: Mapping[str, int]) -> dict[int, str]:
    """Each token as other programs know it: special tokens as they are, the rest spelt.

    Raises ValueError for a special token that is spelt as another is: b" " and "Ġ".
    """
    texts = {i: text for text, i in specials.items()}
    found = {i: texts[i] if i in texts else spelt(token) for i, token in vocab.items()}
    if len(set(found.values())) < len(found):
        text = next(t for i, t in texts.items() if list(found.values()).count(t) > 1)
        raise ValueError(f"the special token {text!r} is spelt as another token; rename it")
    return found


def save_hf(path: str | os.PathLike[str], parts: Parts, expression: str) -> None:
    """Write tokenizer.json; needs no package. ValueError for a pattern that is read otherwise."""
    if re.search(r"{\d*,?\d*}\+", expression):
        raise ValueError(
            f"pattern {expression!r} has }}+, which tokenizers reads as (...)+; write (?>...)"
        )
    split = {
        "type": "Split",
        "pattern": {"Regex": expression},
        "behavior": "Isolated",
        "invert": False,
    }
    letters = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    steps = [letters] if parts.pattern == "none" else [split, letters]
    specials = [
        {
            "id": i,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for text, i in parts.special_tokens.items()
    ]
    spelt_vocab = spellings(parts.vocab, parts.special_tokens)
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {text: i for i, text in sorted(spelt_vocab.items())},
        "merges": [[spelt(a), spelt(b)] for a, b in parts.merges],
    }
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(specials, key=lambda s: int(str(s["id"]))),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": letters,
        "model": model,
    }
    with output_file(path) as file:
        file.write(json.dumps(whole, ensure_ascii=False, indent=1).encode("utf-8"))
