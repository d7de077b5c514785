"""One id a character: the smallest tokenizer, with the surface of BPETokenizer."""

import json
import os
from collections.abc import Collection, Iterable, Iterator
from operator import index

from tok.files import check, read_json, write_whole
from tok.special import allowed, check_specials, special_parts, whole_specials

VERSION = 1


class CharTokenizer:
    """Characters in sorted order are ids 0, 1, ...; special tokens follow.

    `CharTokenizer("cab").encode("abba")` -> [0, 1, 1, 0]. ValueError for duplicates.
    """

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

    @classmethod
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

    def encode(self, text: str, *, allowed_special: str | Collection[str] = "none") -> list[int]:
        """One id a character. ValueError for a character that training did not see.

        Special tokens are plain text unless allowed: "none", "all", or a set of them.
        """
        ids: list[int] = []
        for part, special in special_parts(text, allowed(allowed_special, self.special_tokens)):
            if special:
                ids.append(self.special_tokens[part])
                continue
            try:
                ids.extend(map(self._ids.__getitem__, part))
            except KeyError as e:
                self._refuse(e.args[0], text)
        return ids

    def encode_iter(
        self, chunks: Iterable[str], *, allowed_special: str | Collection[str] = "none"
    ) -> Iterator[int]:
        """The ids of all chunks as one text, a chunk at a time."""
        for part in whole_specials(chunks, allowed(allowed_special, self.special_tokens)):
            yield from self.encode(part, allowed_special=allowed_special)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text. ValueError for an id that is not in the vocabulary."""
        return "".join(self.decode_stream(ids))

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """One character (or special token) an id, as they come."""
        for i in map(index, ids):
            if i not in self.vocab:
                raise ValueError(f"unknown id {i}; the vocabulary has 0 to {self.vocab_size - 1}")
            yield self.vocab[i]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a readable JSON file; the same tokenizer gives the same bytes."""
        found = {
            "kind": "char",
            "version": VERSION,
            "chars": self.chars,
            "special_tokens": self.special_tokens,
        }
        lines = (f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=True)}" for k, v in found.items())
        write_whole(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode("utf-8"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "CharTokenizer":
        """Read what `save` wrote. ValueError for anything else."""
        name = os.fspath(path)
        found = read_json(path)
        check(found, "char", VERSION, name)
        try:
            chars, specials = found["chars"], found["special_tokens"]
            made = cls(chars, sorted(specials, key=specials.__getitem__))
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"{name}: damaged ({type(e).__name__}: {e}); train it again") from None
        if made.special_tokens != specials:
            raise ValueError(f"{name}: special tokens have wrong ids; train it again")
        return made

    def _refuse(self, char: str, text: str) -> None:
        raise ValueError(
            f"character {char!r} (U+{ord(char):04X}) at {text.index(char)} was not in the training "
            "text; remove it, or use --tokenizer bpe, which takes any text"
        )
