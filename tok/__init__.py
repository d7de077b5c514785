"""Text <-> ids: byte-level BPE, unigram, WordPiece, characters. Standard library and `regex` only.

>>> from tok import BPETokenizer
>>> tok = BPETokenizer.train(["low lower lowest"], 260)
>>> tok.decode(tok.encode("slowly"))
'slowly'
"""

import os

from tok.base import END_OF_TEXT, UNKNOWN, Tokenizer
from tok.bpe import BPETokenizer
from tok.char import CharTokenizer
from tok.storage import read_kind
from tok.unigram import UnigramTokenizer
from tok.wordpiece import WordPieceTokenizer

__all__ = [
    "END_OF_TEXT",
    "KINDS",
    "UNKNOWN",
    "BPETokenizer",
    "CharTokenizer",
    "Tokenizer",
    "UnigramTokenizer",
    "WordPieceTokenizer",
    "load",
]

KINDS: dict[str, type[Tokenizer]] = {
    "bpe": BPETokenizer,
    "char": CharTokenizer,
    "unigram": UnigramTokenizer,
    "wordpiece": WordPieceTokenizer,
}


def load(path: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer of whatever kind. ValueError for a file that no tokenizer saved."""
    kind = read_kind(path)["kind"]
    if kind not in KINDS:
        known = ", ".join(map(repr, KINDS))
        raise ValueError(f"{os.fspath(path)}: unknown kind {kind!r}; known are {known}")
    return KINDS[kind].load(path)
