"""What every tokenizer can do. Text -> ids -> text; how is each tokenizer's own business."""

import os
from array import array
from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

Allowed = str | Collection[str]  # special tokens: "none", "all", or a set of them
Documents = Iterable[str | Iterable[str]]  # each a text, or its chunks
Blocks = Iterator["array[int]"]  # ids as uint16, or uint32 above 65,536 ids
END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "[UNK]"  # stands for a word that a vocabulary can't spell


class Tokenizer(Protocol):
    """The methods that all tokenizers share, for type hints.

    Special tokens in a text are plain text unless `allowed_special` names them.
    """

    special_tokens: dict[str, int]
    lossless: bool  # whether decode(encode(text)) is the text: only then do ids stand for its bytes

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special tokens included."""

    def encode(self, text: str, *, allowed_special: Allowed = "none") -> list[int]:
        """Text -> ids. ValueError for half a surrogate pair, which is no character."""

    def encode_iter(
        self, chunks: Iterable[str], *, allowed_special: Allowed = "none"
    ) -> Iterator[int]:
        """The ids of all chunks as one text, one by one, in little memory."""

    def encode_blocks(
        self, chunks: Iterable[str], *, allowed_special: Allowed = "none", workers: int = 1
    ) -> Blocks:
        """The ids of all chunks as one text, in arrays; `workers` processes share the work."""

    def encode_documents(
        self, documents: Documents, *, end: int | None = None, workers: int = 1
    ) -> Blocks:
        """The ids of each document by itself, then `end`; special tokens in it are plain text.

        A document is a string or an iterable of its chunks, read to its end before the next.
        """

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text. ValueError for an unknown id."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids -> UTF-8 bytes, exactly. ValueError for an unknown id."""

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Text as ids come in, whole characters only."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """Read what `save` wrote. ValueError for anything else."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that `tok.load` reads; the same tokenizer gives the same bytes."""
