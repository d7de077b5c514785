"""Text <-> ids: byte-level BPE and characters. Standard library and `regex` only.

>>> from tok import BPETokenizer
>>> tok = BPETokenizer.train(["low lower lowest"], 260)
>>> tok.decode(tok.encode("slowly"))
'slowly'
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tok.bpe import BPETokenizer
    from tok.char import CharTokenizer

__all__ = ["BPETokenizer", "CharTokenizer", "load"]


def load(path: str | os.PathLike[str]) -> "BPETokenizer | CharTokenizer":
    """Read a tokenizer of whatever kind. ValueError for a file that no tokenizer saved."""
    from tok.bpe import BPETokenizer
    from tok.char import CharTokenizer
    from tok.saved import read_kind

    kind = read_kind(path)["kind"]
    if kind == "bpe":
        return BPETokenizer.load(path)
    if kind == "char":
        return CharTokenizer.load(path)
    raise ValueError(f"{os.fspath(path)}: unknown kind {kind!r}; known are 'bpe' and 'char'")


def __getattr__(name: str) -> Any:  # late, so that `python -m tok.bpe` runs bpe.py once, not twice
    if name == "BPETokenizer":
        from tok.bpe import BPETokenizer

        return BPETokenizer
    if name == "CharTokenizer":
        from tok.char import CharTokenizer

        return CharTokenizer
    raise AttributeError(f"module 'tok' has no {name!r}; it has {', '.join(__all__)}")
