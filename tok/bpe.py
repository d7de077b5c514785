r"""Byte-level BPE: any text in ids, and back without loss. Knows nothing of models.

    python -m tok.bpe train data/tiny.txt --vocab 1000 --out tok/bpe.json
    echo "Once upon a time" | python -m tok.bpe encode --tokenizer tok/bpe.json
    echo "79 110 99 101" | python -m tok.bpe decode --tokenizer tok/bpe.json

Text is cut into words (`split.py`), a word is its UTF-8 bytes, and merges learnt from a text
(`merges.py`) join neighbours, the earliest learnt first (`ranks.py`).
"""

import codecs
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from operator import index
from typing import Any

from tok.files import check, read_json, write_whole
from tok.merges import as_chars, learn
from tok.ranks import Ranks
from tok.special import allowed, check_specials, special_parts, whole_specials
from tok.split import Splitter

VERSION = 1
END_OF_TEXT = "<|endoftext|>"
Merge = tuple[bytes, bytes]


class BPETokenizer:
    """256 bytes, then one token a merge, then special tokens.

    vocab: id -> bytes, all 256 single bytes among them; merges: pairs of bytes, the first learnt
    first; special_tokens: text that gets one id (a new one if vocab has none for it). ValueError
    for a vocabulary and merges that do not belong together.
    """

    def __init__(
        self,
        vocab: dict[int, bytes],
        merges: Iterable[Merge],
        special_tokens: Iterable[str] = (),
        pattern: str = "gpt2",
    ):
        self.vocab, self.merges, self.pattern = dict(vocab), list(merges), pattern
        self._ranks, self._split = Ranks(self.merges), Splitter(pattern)
        specials = check_specials(special_tokens)
        ids = self._unique_ids()
        self.special_tokens = {s: self._special_id(s, ids) for s in specials}
        self._check_made(ids)
        self._id = {char: ids[token] for token, char in self._ranks.char.items()}
        self._cache = Words(self._encode_unit)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        special_tokens: Iterable[str] = (END_OF_TEXT,),
        pattern: str = "gpt2",
        step: Callable[[int], object] = lambda done: None,
    ) -> "BPETokenizer":
        """Learn vocab_size - 256 - len(special_tokens) merges; fewer if the text gives no more.

        Each text stands alone: no merge crosses from one to the next, nor a special token.
        ValueError for a vocabulary smaller than bytes and special tokens. `step(done)` is called
        after each merge.
        """
        specials = check_specials(special_tokens)
        least = 256 + len(specials)
        if vocab_size < least:
            raise ValueError(
                f"vocab_size={vocab_size} is smaller than 256 bytes + {len(specials)} special "
                f"tokens; give at least {least}"
            )
        split = Splitter(pattern)
        merges = learn(count_words(texts, split, specials), vocab_size - least, step)
        vocab = {i: bytes([i]) for i in range(256)}
        vocab |= {256 + i: a + b for i, (a, b) in enumerate(merges)}
        return cls(vocab, merges, specials, pattern)

    @property
    def vocab_size(self) -> int:
        """Bytes, merges and special tokens together."""
        return len(self.vocab)

    def encode(self, text: str, *, allowed_special: str | Collection[str] = "none") -> list[int]:
        """Text -> ids. ValueError for half a surrogate pair, which is no character.

        Special tokens are plain text unless allowed: "none", "all", or a set of them.
        """
        ids: list[int] = []
        try:
            for part, special in special_parts(text, allowed(allowed_special, self.special_tokens)):
                if special:
                    ids.append(self.special_tokens[part])
                else:
                    units = self._split.units(part)
                    ids.extend(chain.from_iterable(map(self._cache.__getitem__, units)))
        except UnicodeEncodeError:
            refuse_surrogate(text)
        return ids

    def encode_iter(
        self, chunks: Iterable[str], *, allowed_special: str | Collection[str] = "none"
    ) -> Iterator[int]:
        """The ids of all chunks as one text, in bounded memory.

        Only the patterns gpt2 and gpt4 tell where a text may be cut; others hold all of it.
        """
        specials = allowed(allowed_special, self.special_tokens)
        for part in self._safe_parts(whole_specials(chunks, specials), specials):
            yield from self.encode(part, allowed_special=allowed_special)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text; bytes that are not UTF-8 become U+FFFD. ValueError for an unknown id."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids -> bytes, exactly. ValueError for an unknown id."""
        return b"".join(map(self._token, ids))

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Text as ids come in, whole characters only; together it is `decode(ids)`."""
        characters = codecs.getincrementaldecoder("utf-8")("replace")
        for i in ids:
            if text := characters.decode(self._token(i)):
                yield text
        if text := characters.decode(b"", final=True):
            yield text

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON to read by eye, one merge a line; the same tokenizer gives the same bytes."""
        write_whole(path, self._json().encode("utf-8"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "BPETokenizer":
        """Read what `save` wrote. ValueError for anything else."""
        name = os.fspath(path)
        found = read_json(path)
        check(found, "bpe", VERSION, name)
        try:
            merges = [(as_bytes(a), as_bytes(b)) for _, a, b in found["merges"]]
            specials: dict[str, int] = found["special_tokens"]
            vocab = {index(i): bytes([b]) for b, i in enumerate(found["bytes"])}
            vocab |= {
                index(i): a + b for (i, _, _), (a, b) in zip(found["merges"], merges, strict=True)
            }
            vocab |= {index(i): s.encode("utf-8") for s, i in specials.items()}
            return cls(vocab, merges, specials, found["pattern"])
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"{name}: damaged ({type(e).__name__}: {e}); train it again") from None
        except ValueError as e:
            raise ValueError(f"{name}: {e}") from None

    def _json(self) -> str:
        ids = {token: i for i, token in self.vocab.items()}
        head = {
            "kind": "bpe",
            "version": VERSION,
            "pattern": self.pattern,
            "vocab_size": self.vocab_size,
            "special_tokens": self.special_tokens,
            "bytes": [ids[bytes([i])] for i in range(256)],
        }
        lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in head.items()]
        merges = (json.dumps([ids[a + b], as_json(a), as_json(b)]) for a, b in self.merges)
        return "{\n" + ",\n".join(lines) + ',\n"merges": [\n' + ",\n".join(merges) + "\n]\n}\n"

    def _encode_unit(self, unit: str) -> tuple[int, ...]:
        words = self._split.words(unit)
        chars = "".join(map(self._ranks.tokens, map(as_chars, words)))
        return tuple(map(self._id.__getitem__, chars))

    def _safe_parts(self, chunks: Iterable[str], specials: Collection[str]) -> Iterator[str]:
        rest = ""
        for chunk in chunks:
            rest += chunk
            tail = len(rest)
            for part, _ in special_parts(rest, specials):
                tail = len(part)
            cut = len(rest) - tail + self._split.safe_cut(rest[len(rest) - tail :])
            yield rest[:cut]
            rest = rest[cut:]
        yield rest

    def _token(self, i: int) -> bytes:
        try:
            return self.vocab[index(i)]
        except KeyError:
            raise ValueError(f"unknown id {i}; the vocabulary has {self.vocab_size} ids") from None

    def _unique_ids(self) -> dict[bytes, int]:
        ids: dict[bytes, int] = {}
        for i, token in self.vocab.items():
            if ids.setdefault(token, i) != i:
                raise ValueError(f"ids {ids[token]} and {i} are both {token!r}; keep one of them")
        return ids

    def _special_id(self, special: str, ids: dict[bytes, int]) -> int:
        token = special.encode("utf-8")
        if token in self._ranks.char:
            raise ValueError(f"special token {special!r} is an ordinary token too; make it longer")
        new = ids.setdefault(token, max(self.vocab, default=-1) + 1)
        self.vocab[new] = token
        return new

    def _check_made(self, ids: dict[bytes, int]) -> None:
        if missing := [token for token in self._ranks.char if token not in ids]:
            raise ValueError(f"the vocabulary has no id for {missing[0]!r}; add it")
        specials = {s.encode("utf-8") for s in self.special_tokens}
        if stray := [t for t in ids if t not in self._ranks.char and t not in specials]:
            raise ValueError(
                f"no merge makes the token {stray[0]!r}; remove it, or call it special"
            )


class Words(dict[str, tuple[int, ...]]):
    """A bounded memory of words and their ids; a word that it knows costs one look-up in C."""

    def __init__(self, encode: Callable[[str], tuple[int, ...]], limit: int = 1 << 16):
        super().__init__()
        self.encode, self.limit = encode, limit

    def __missing__(self, word: str) -> tuple[int, ...]:
        if len(self) >= self.limit:
            self.clear()
        ids = self.encode(word)
        if len(word) < 64:  # a long one hardly comes again
            self[word] = ids
        return ids


def count_words(texts: Iterable[str], split: Splitter, specials: Collection[str]) -> Counter[str]:
    """How often each word occurs; special tokens cut the text and are not counted."""
    words: Counter[str] = Counter()
    for text in texts:
        units: Counter[str] = Counter()
        for part, special in special_parts(text, specials):
            if not special:
                units.update(split.units(part))
        for unit, n in units.items():
            for word in split.words(unit):
                words[word] += n
    return words


def refuse_surrogate(text: str) -> None:
    """ValueError with the place of the first half of a surrogate pair."""
    at = next(i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff")
    raise ValueError(
        f"character {at} is half a surrogate pair (U+{ord(text[at]):04X}); "
        "clean the text with text.encode('utf-8', 'replace').decode('utf-8')"
    )


def as_json(token: bytes) -> str | list[int]:
    """A token as text where it is text, else as a list of its bytes."""
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return list(token)


def as_bytes(found: Any) -> bytes:
    """What `as_json` wrote, as bytes again."""
    return found.encode("utf-8") if isinstance(found, str) else bytes(found)


if __name__ == "__main__":
    from tok.cli import run
    from tok.commands import main

    run(main)
