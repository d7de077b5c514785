r"""Byte-level BPE: any text in ids, and back without loss. Knows nothing of models.

    python -m tok.bpe train data/tiny.txt --vocab 1000 --out tok/bpe.json
    echo "Once upon a time" | python -m tok.bpe encode --tokenizer tok/bpe.json
    echo "79 110 99 101" | python -m tok.bpe decode --tokenizer tok/bpe.json

Text is cut into words (`split.py`), a word is its UTF-8 bytes, and merges learnt from a text
(`merges.py`) join neighbours, the earliest learnt first (`ranks.py`).
"""

import codecs
import os
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from operator import index
from typing import Any, TypeVar

from tok import peers, saved
from tok.count import count_words
from tok.encoder import Encoder
from tok.merges import learn
from tok.packed import packed
from tok.ranks import Ranks
from tok.special import allowed, check_specials, safe_texts, special_parts
from tok.split import Splitter
from tok.workers import in_order

MEMORY = 1 << 17  # words that encode remembers, about 250 bytes each
FEW = 1 << 10  # the same for encode_iter
SMALL, PIECE, BLOCK = 1 << 13, 1 << 16, 1 << 20  # characters at a time
END_OF_TEXT = "<|endoftext|>"
T = TypeVar("T")


class BPETokenizer:
    """256 bytes, then one token a merge, then special tokens.

    vocab: id -> bytes, each token once, all 256 single bytes among them; merges: pairs of bytes,
    the first learnt first; special_tokens: texts that get one id each (a new one if vocab has
    none). ValueError for a vocabulary and merges that do not belong together.
    """

    def __init__(
        self,
        vocab: dict[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: Iterable[str] = (),
        pattern: str = "gpt2",
    ):
        self.vocab, self.merges, self.pattern = dict(vocab), list(merges), pattern
        ranks, split = Ranks(self.merges), Splitter(pattern)
        made = {text.encode("latin-1"): char for text, char in ranks.char.items()}
        specials = check_specials(special_tokens)
        ids = complete(self.vocab, made, [s.encode("utf-8") for s in specials])
        self.special_tokens = {s: ids[s.encode("utf-8")] for s in specials}
        self._ranks, self._split = ranks, split
        self._encoder = Encoder(ranks, split, {c: ids[t] for t, c in made.items()}, MEMORY)

    @classmethod
    def train(
        cls,
        texts: Iterable[str | Iterable[str]],
        vocab_size: int,
        *,
        special_tokens: Iterable[str] = (END_OF_TEXT,),
        pattern: str = "gpt2",
        workers: int = 1,
        step: Callable[[int], object] = lambda done: None,
    ) -> "BPETokenizer":
        """Learn vocab_size - 256 - len(special_tokens) merges; fewer if the text gives no more.

        Each text, a string or an iterable of its chunks such as an open file, stands alone: no
        merge crosses from one to the next, nor a special token.
        ValueError for a vocabulary smaller than bytes and special tokens. `workers` processes
        count words; `step(done)` is called after each merge.
        """
        specials = check_specials(special_tokens)
        least = 256 + len(specials)
        if vocab_size < least:
            raise ValueError(
                f"vocab_size={vocab_size} is smaller than 256 bytes + {len(specials)} special "
                f"tokens; give at least {least}"
            )
        split = Splitter(pattern)
        words = count_words(strings(texts), split, specials, workers)
        merges = learn(words, vocab_size - least, step)
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
        chosen = allowed(allowed_special, self.special_tokens)
        ids: list[int] = []
        for piece in safe_texts([text], chosen, self._split.cut, PIECE):
            ids += self._encode(self._encoder, chosen, piece)
        return ids

    def encode_iter(
        self, chunks: Iterable[str], *, allowed_special: str | Collection[str] = "none"
    ) -> Iterator[int]:
        """The ids of all chunks as one text, in less than 1 MB beside the largest chunk.

        The patterns gpt2 and gpt4 end a word at white space, so text is kept only up to there;
        other patterns must hold all of it.
        """
        chosen = allowed(allowed_special, self.special_tokens)
        encoder = self._encoder.with_limit(FEW)
        for piece in safe_texts(strings(chunks), chosen, self._split.cut, SMALL):
            yield from self._encode(encoder, chosen, piece)

    def encode_blocks(
        self,
        chunks: Iterable[str],
        *,
        allowed_special: str | Collection[str] = "none",
        workers: int = 1,
    ) -> Iterator["array[int]"]:
        """The ids of all chunks as one text, in arrays of uint16, or uint32 above 65,536 ids.

        For large files: `workers` processes share the work, and the ids come in order.
        """
        chosen = allowed(allowed_special, self.special_tokens)
        task = partial(self._block, chosen)
        jobs = safe_texts(strings(chunks), chosen, self._split.cut, BLOCK)
        yield from in_order(task, jobs, workers)

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
        saved.write_bpe(path, self.vocab, self.merges, self.special_tokens, self.pattern)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "BPETokenizer":
        """Read what `save` wrote. ValueError for anything else."""
        with saved.blame(path):
            return cls(*saved.read_bpe(path))

    @classmethod
    def from_gpt2(
        cls, vocab: str | os.PathLike[str], merges: str | os.PathLike[str]
    ) -> "BPETokenizer":
        """GPT-2's published vocab.json and merges.txt. ValueError for files in another form."""
        return cls(*peers.read_gpt2(vocab, merges), pattern="gpt2")

    def to_tiktoken(self, name: str = "llm-tiny") -> Any:
        """A tiktoken.Encoding with the same ids. ValueError where tiktoken can give no such.

        Needs the package tiktoken.
        """
        return peers.to_tiktoken(self, self._split.expression, self._ranks.sound, name)

    def save_hf(self, path: str | os.PathLike[str]) -> None:
        """Write a tokenizer.json for Hugging Face's tokenizers, which then gives the same ids."""
        peers.save_hf(path, self, self._split.expression)

    def __reduce__(self) -> tuple[type["BPETokenizer"], tuple[object, ...]]:
        return BPETokenizer, (self.vocab, self.merges, list(self.special_tokens), self.pattern)

    def _encode(self, encoder: Encoder, specials: Collection[str], text: str) -> list[int]:
        ids: list[int] = []
        for part, special in special_parts(text, specials):
            ids += [self.special_tokens[part]] if special else encoder.encode(part)
        return ids

    def _block(self, specials: Collection[str], text: str) -> "array[int]":
        return packed(self.vocab_size, self.encode(text, allowed_special=set(specials)))

    def _token(self, i: int) -> bytes:
        try:
            return self.vocab[index(i)]
        except KeyError:
            raise ValueError(f"unknown id {i}; the vocabulary has {self.vocab_size} ids") from None


def complete(
    vocab: dict[int, bytes], made: Collection[bytes], specials: Iterable[bytes]
) -> dict[bytes, int]:
    """Give each special token an id in vocab, and return token -> id.

    ValueError unless each token is there once, and is what bytes and merges make, or special.
    """
    ids: dict[bytes, int] = {}
    for i, token in vocab.items():
        if ids.setdefault(token, i) != i:
            raise ValueError(f"ids {ids[token]} and {i} are both {token!r}; keep one of them")
    for token in specials:
        if token in made:
            raise ValueError(f"special token {token!r} is an ordinary token too; make it longer")
        vocab[ids.setdefault(token, max(vocab, default=-1) + 1)] = token
    if missing := [token for token in made if token not in ids]:
        raise ValueError(f"the vocabulary has no id for {missing[0]!r}; add it")
    if stray := ids.keys() - set(made) - set(specials):
        raise ValueError(f"no merge makes the token {min(stray)!r}; remove it, or call it special")
    return ids


def strings(texts: Iterable[T]) -> Iterable[T]:
    """The texts; ValueError for a single string, which would be taken letter by letter."""
    if isinstance(texts, str):
        raise ValueError(f"texts={texts[:20]!r} is one string; give a list of them: [text]")
    return texts


if __name__ == "__main__":
    from tok.cli import run
    from tok.commands import main

    run(main)
