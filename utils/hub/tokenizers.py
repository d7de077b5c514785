"""The tokenizer of a Hugging Face directory, read and written: BPE, or BERT's WordPiece."""

import json
from pathlib import Path
from typing import Any

from tok import BPETokenizer, Tokenizer, WordPieceTokenizer
from tok.special import BERT_TOKENS
from tok.wordpiece.storage import around

KINDS: dict[str, Any] = {"WordPiece": WordPieceTokenizer}  # all else is BPE, or says that it is not
NAMES = {"[CLS]": "cls", "[SEP]": "sep", "[PAD]": "pad", "[MASK]": "mask", "[UNK]": "unk"}


def read_tokenizer(path: Path, known: dict[str, Any]) -> Tokenizer:
    """Read tokenizer.json, or a BERT's vocab.txt; `known` is tokenizer_config.json.

    Raises ValueError if neither is there, or for a kind that we lack.
    """
    file, vocab = path / "tokenizer.json", path / "vocab.txt"
    if file.exists():
        try:
            kind = json.loads(file.read_text(encoding="utf-8"))["model"]["type"]
        except (ValueError, KeyError, TypeError, RecursionError):
            kind = ""  # damaged, or old: the reader says so
        return KINDS.get(kind, BPETokenizer).from_hf(file)
    if not vocab.exists():
        raise ValueError(f"{path} has no tokenizer.json; save it with the tokenizer's fast kind")
    how = {key: known.get(key) for key in ("do_lower_case", "strip_accents")}
    lower = how["do_lower_case"] is not False  # BERT's default
    return WordPieceTokenizer.from_vocab(vocab, lowercase=lower, strip_accents=how["strip_accents"])


def write_tokenizer(path: Path, tokenizer: Any, *, pairs: bool) -> None:
    """Write tokenizer.json; with `pairs` it puts [CLS] and [SEP] around texts, as BERT reads them.

    WordPiece gets a vocab.txt, too, which says less.
    """
    file = path / "tokenizer.json"
    tokenizer.save_hf(file)
    if isinstance(tokenizer, WordPieceTokenizer):
        tokenizer.save_vocab(path / "vocab.txt")
    elif pairs:
        whole = json.loads(file.read_text(encoding="utf-8"))
        whole["post_processor"] = around(tokenizer.special_tokens)
        file.write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")


def bert_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The special tokens of a BERT as tokenizer_config.json names them: cls_token and so on."""
    specials = tokenizer.special_tokens
    return {f"{NAMES[t]}_token": t for t in (*BERT_TOKENS, "[UNK]") if t in specials}


def bert_described(path: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """What tokenizer_config.json says of the BERT's tokenizer that `write_tokenizer` wrote."""
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    described: dict[str, Any] = {"model_input_names": inputs, **bert_tokens(tokenizer)}
    if isinstance(tokenizer, WordPieceTokenizer):  # for readers of vocab.txt, which says less
        how = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))["normalizer"]
        described["do_lower_case"] = how["lowercase"]
        described["strip_accents"] = how["strip_accents"]
    return described
