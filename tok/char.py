"""One id a character: the smallest tokenizer, with the surface of BPETokenizer."""

import os
from collections.abc import Collection, Iterable, Iterator
from operator import index

from tok.base import Allowed, Blocks, Documents
from tok.ids import id_array
from tok.pieces import batches, check_texts, safe_pieces
from tok.special import allowed, check_specials, special_parts
from tok.storage import VERSION, blame, read, write_lines

KEYS = ("vocab_size", "chars", "special_tokens")
SMALL, BLOCK = 1 << 13, 1 << 20  # characters at a time


class CharTokenizer:
    """Characters in sorted order are ids 0, 1, ...; special tokens follow.

    `CharTokenizer("cab").encode("abba")` -> [0, 1, 1, 0]. ValueError for duplicates.
    """

    lossless = True

    def __init__(self, chars: Iterable[str], special_tokens: Iterable[str] = ()):
        self.chars = list(chars)
        specials = check_specials(special_tokens)
        for c in self.chars:
            if not isinstance(c, str) or len(c) != 1:
                raise ValueError(f"chars has {c!r}; give single characters")
        if len(set(self.chars)) != len(self.chars):
            raise ValueError("chars has the same character twice; give each once")
        if clash := set(specials) & set(self.chars):
            raise ValueError(f"special token {min(clash)!r} is a character too; make it longer")
        self.vocab = dict(enumerate([*self.chars, *specials]))
        self.special_tokens = {s: len(self.chars) + i for i, s in enumerate(specials)}
        self._ids = {c: i for i, c in enumerate(self.chars)}

    @classmethod  # exercise: char-vocabulary
    def train(cls, texts: Iterable[str], *, special_tokens: Iterable[str] = ()) -> "CharTokenizer":
        """The characters of the texts, special tokens left out. ValueError if there are none."""
        specials = check_specials(special_tokens)
        chars: set[str] = set()
        for text in texts:
            for part, special in special_parts(text, specials):
                if not special:
                    chars.update(part)
        if not chars:
            raise ValueError("the text is empty; give at least one character")
        return cls(sorted(chars), specials)

    @property
    def vocab_size(self) -> int:
        """Characters and special tokens together."""
        return len(self.vocab)

    def encode(self, text: str, *, allowed_special: Allowed = "none") -> list[int]:
        """One id a character. ValueError for a character that training did not see.

        Special tokens are plain text unless allowed: "none", "all", or a set of them.
        """
        chosen = allowed(allowed_special, self.special_tokens)
        return self._encode(chosen, text, 0)

    def encode_iter(
        self, chunks: Iterable[str], *, allowed_special: Allowed = "none"
    ) -> Iterator[int]:
        """The ids of all chunks as one text, a little at a time."""
        chosen, start = allowed(allowed_special, self.special_tokens), 0
        for piece in safe_pieces(chunks, chosen, len, SMALL):
            yield from self._encode(chosen, piece, start)
            start += len(piece)

    def encode_blocks(
        self, chunks: Iterable[str], *, allowed_special: Allowed = "none", workers: int = 1
    ) -> Blocks:
        """The same in arrays of uint16, or uint32 above 65,536 ids; `workers` changes nothing."""
        chosen, start = allowed(allowed_special, self.special_tokens), 0
        for piece in safe_pieces(chunks, chosen, len, BLOCK):
            yield id_array(self.vocab_size, self._encode(chosen, piece, start))
            start += len(piece)

    def encode_documents(
        self, documents: Documents, *, end: int | None = None, workers: int = 1
    ) -> Blocks:
        """The ids of each document by itself, then `end`; `workers` changes nothing."""
        start = 0  # of the piece in its document
        for batch in batches(check_texts(documents), (), len, BLOCK):
            ids = id_array(self.vocab_size)
            for piece in batch:
                if piece is not None:
                    ids.extend(self._encode((), piece, start))
                    start += len(piece)
                    continue
                start = 0
                if end is not None:
                    ids.append(end)
            yield ids

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text. ValueError for an id that is not in the vocabulary."""
        return "".join(self.decode_stream(ids))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids -> UTF-8. ValueError for an unknown id."""
        return self.decode(ids).encode("utf-8")

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """One character (or special token) an id, as they come."""
        for i in map(index, ids):
            if i not in self.vocab:
                raise ValueError(f"unknown id {i}; the vocabulary has 0 to {self.vocab_size - 1}")
            yield self.vocab[i]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a readable JSON file; the same tokenizer gives the same bytes."""
        head = {"kind": "char", "version": VERSION, "vocab_size": self.vocab_size}
        write_lines(path, head | {"chars": self.chars, "special_tokens": self.special_tokens})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "CharTokenizer":
        """Read what `save` wrote. ValueError for anything else."""
        with blame(path):
            found = read(path, "char", KEYS)
            specials = found["special_tokens"]
            made = cls(found["chars"], sorted(specials, key=specials.__getitem__))
            if (made.special_tokens, made.vocab_size) != (specials, found["vocab_size"]):
                raise ValueError("the ids do not match the characters; train it again")
            return made

    def _encode(self, specials: Collection[str], text: str, start: int) -> list[int]:
        ids: list[int] = []
        for part, special in special_parts(text, specials):
            if special:
                ids.append(self.special_tokens[part])
                continue
            try:
                ids.extend(map(self._ids.__getitem__, part))
            except KeyError as e:
                char: str = e.args[0]
                raise ValueError(
                    f"character {char!r} (U+{ord(char):04X}) at {start + text.index(char)} was not "
                    "in the training text; remove it, or use a bpe tokenizer, which takes any text"
                ) from None
        return ids
