r"""Byte-level BPE: any text in ids, and back without loss. Knows nothing of models.

    python -m tok.bpe train data/tiny.txt --vocab 1000 --out tok/bpe.json
    echo "Once upon a time" | python -m tok.bpe encode --tokenizer tok/bpe.json
    echo "79 110 99 101" | python -m tok.bpe decode --tokenizer tok/bpe.json
    python -m tok.bpe import vocab.json merges.txt --out tok/gpt2.json    # GPT-2's own

Text is cut into words (`pretokenize.py`), a word is its UTF-8 bytes, and merges learnt from a text
(`train.py`) join neighbours, the earliest learnt first (`merges.py`).
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tok.common as common
from tok.base import END_OF_TEXT, Allowed, Blocks, Documents
from tok.bpe.encode import Encoder
from tok.bpe.interop import read_gpt2, read_hf, save_hf, to_tiktoken
from tok.bpe.merges import MergeTable
from tok.bpe.pretokenize import Splitter
from tok.bpe.storage import Parts, complete, read_bpe, write_bpe
from tok.bpe.train import count_words, learn
from tok.pieces import check_texts
from tok.special import check_specials
from tok.storage import blame


class BPETokenizer:
    """256 bytes, then one token a merge, then special tokens.

    vocab: id -> bytes, each token once; merges: pairs of bytes, the first learnt first;
    special_tokens: texts that get one id each (a new one if vocab has none). ValueError for a
    vocabulary and merges that do not belong together. All 256 single bytes are in a vocabulary of
    ours; one from elsewhere may lack some, and `encode` raises ValueError for them.
    """

    lossless = True

    def __init__(
        self,
        vocab: dict[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: Iterable[str] = (),
        pattern: str = "gpt2",
    ):
        self.vocab, self.merges, self.pattern = dict(vocab), list(merges), pattern
        table, split = MergeTable(self.merges), Splitter(pattern)
        made = {text.encode("latin-1"): char for text, char in table.char.items()}
        specials = check_specials(special_tokens)
        ids = complete(self.vocab, made, [s.encode("utf-8") for s in specials])
        self.special_tokens = {s: ids[s.encode("utf-8")] for s in specials}
        self._table, self._split, self._cut = table, split, split.cut
        known = {c: ids[t] for t, c in made.items() if t in ids}
        self._encoder = Encoder(table, split, known, common.MEMORY)

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
        words = count_words(check_texts(texts), split, specials, workers)
        merges = learn(words, vocab_size - least, step)
        vocab = {i: bytes([i]) for i in range(256)}
        vocab |= {256 + i: a + b for i, (a, b) in enumerate(merges)}
        return cls(vocab, merges, specials, pattern)

    @property
    def vocab_size(self) -> int:
        """Bytes, merges and special tokens together."""
        return len(self.vocab)

    def encode(self, text: str, *, allowed_special: Allowed = "none") -> list[int]:
        """Text -> ids. ValueError for half a surrogate pair, which is no character.

        Special tokens are plain text unless allowed: "none", "all", or a set of them.
        """
        return common.encode(self, text, allowed_special)

    def encode_iter(
        self, chunks: Iterable[str], *, allowed_special: Allowed = "none"
    ) -> Iterator[int]:
        """The ids of all chunks as one text, in less than 1 MB beside the largest chunk.

        The patterns gpt2 and gpt4 end a word at white space, so text is kept only up to there;
        other patterns must hold all of it.
        """
        return common.encode_iter(self, chunks, allowed_special)

    def encode_blocks(
        self, chunks: Iterable[str], *, allowed_special: Allowed = "none", workers: int = 1
    ) -> Blocks:
        """The ids of all chunks as one text, in arrays of uint16, or uint32 above 65,536 ids.

        For large files: `workers` processes share the work, and the ids come in order.
        """
        return common.encode_blocks(self, chunks, allowed_special, workers)

    def encode_documents(
        self, documents: Documents, *, end: int | None = None, workers: int = 1
    ) -> Blocks:
        """The ids of each document by itself, then `end`, in arrays of uint16 or uint32.

        A document is a string or an iterable of its chunks, read to its end before the next, so it
        may be larger than memory. Special tokens in it are plain text.
        [["a", "b"], "c"] with end=256 -> ids of "ab", 256, ids of "c", 256.
        """
        return common.encode_documents(self, documents, end, workers)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text; bytes that are not UTF-8 become U+FFFD. ValueError for an unknown id."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids -> bytes, exactly. ValueError for an unknown id."""
        return common.decode_bytes(self.vocab, ids)

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Text as ids come in, whole characters only; together it is `decode(ids)`."""
        return common.decode_stream(self.vocab, ids)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON to read by eye, one merge a line; the same tokenizer gives the same bytes."""
        write_bpe(path, self._parts())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "BPETokenizer":
        """Read what `save` wrote. ValueError for anything else."""
        with blame(path):
            return cls(*read_bpe(path))

    @classmethod
    def from_gpt2(
        cls,
        vocab: str | os.PathLike[str],
        merges: str | os.PathLike[str],
        special_tokens: Iterable[str] = (),
    ) -> "BPETokenizer":
        """GPT-2's published vocab.json and merges.txt. ValueError for files in another form.

        Special tokens that the files do not have get the next ids.
        """
        wanted = check_specials(special_tokens)
        ids, pairs, specials = read_gpt2(vocab, merges)
        return cls(ids, pairs, [*specials, *(s for s in wanted if s not in specials)], "gpt2")

    @classmethod
    def from_hf(cls, path: str | os.PathLike[str]) -> "BPETokenizer":
        """Hugging Face's tokenizer.json. ValueError for what a byte-level BPE of ours lacks."""
        with blame(path, "bring back a whole one"):
            return cls(*read_hf(path))

    def to_tiktoken(self, name: str = "llm-tiny") -> Any:
        """A tiktoken.Encoding with the same ids. ValueError where tiktoken can give no such.

        Needs the package tiktoken.
        """
        return to_tiktoken(self._parts(), self._split.expression, self._table.sound, name)

    def save_hf(self, path: str | os.PathLike[str]) -> None:
        """Write a tokenizer.json for Hugging Face's tokenizers, which then gives the same ids."""
        save_hf(path, self._parts(), self._split.expression)

    def __reduce__(self) -> tuple[type["BPETokenizer"], tuple[object, ...]]:
        return BPETokenizer, tuple(self._parts())

    def _parts(self) -> Parts:
        return Parts(self.vocab, self.merges, self.special_tokens, self.pattern)
