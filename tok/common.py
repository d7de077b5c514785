"""Whole texts <-> ids: what tokenizers share. How plain text becomes ids is each one's own affair.

The functions that encode take a tokenizer, of which they ask what `Own` says.
"""

import codecs
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from operator import index
from typing import Protocol

from tok.base import Allowed, Blocks, Documents
from tok.ids import id_array
from tok.pieces import Batch, batches, check_texts, safe_pieces
from tok.special import allowed, special_parts
from tok.workers import in_order

MEMORY = 1 << 17  # words that encode remembers, about 250 bytes each
FEW = 1 << 10  # the same for encode_iter
SMALL, PIECE, BLOCK = 1 << 13, 1 << 16, 1 << 20  # characters at a time


class Plain(Protocol):
    """Plain text -> ids, with a bounded memory of words."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""

    def with_limit(self, limit: int) -> "Plain":
        """The same with a memory of its own, of so many words."""


class Own(Protocol):
    """A tokenizer as the functions here need it; it must pickle."""

    special_tokens: dict[str, int]

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""

    @property
    def _encoder(self) -> Plain:
        """What encodes plain text."""

    @property
    def _cut(self) -> Callable[[str], int]:
        """Where a text may be cut: text -> how much of it is certain, more of it to come."""


def encode(tok: Own, text: str, choice: Allowed) -> list[int]:
    """Ids of a text. ValueError for half a surrogate pair, which is no character."""
    chosen = allowed(choice, tok.special_tokens)
    ids: list[int] = []
    for piece in safe_pieces([text], chosen, tok._cut, PIECE):
        ids += encode_piece(tok, tok._encoder, chosen, piece)
    return ids


def encode_iter(tok: Own, chunks: Iterable[str], choice: Allowed) -> Iterator[int]:
    """The ids of all chunks as one text, in little memory: text is kept up to a certain cut."""
    chosen = allowed(choice, tok.special_tokens)
    encoder = tok._encoder.with_limit(FEW)
    for piece in safe_pieces(check_texts(chunks), chosen, tok._cut, SMALL):
        yield from encode_piece(tok, encoder, chosen, piece)


def encode_blocks(tok: Own, chunks: Iterable[str], choice: Allowed, workers: int) -> Blocks:
    """The same in arrays of uint16, or uint32 above 65,536 ids; `workers` processes, in order."""
    chosen = allowed(choice, tok.special_tokens)
    jobs = safe_pieces(check_texts(chunks), chosen, tok._cut, BLOCK)
    yield from in_order(partial(encode_block, tok, chosen), jobs, workers)


def encode_documents(tok: Own, documents: Documents, end: int | None, workers: int) -> Blocks:
    """The ids of each document by itself, then `end`. Each is read to its end before the next."""
    jobs = batches(check_texts(documents), (), tok._cut, BLOCK)
    yield from in_order(partial(encode_batch, tok, end), jobs, workers)


def encode_piece(tok: Own, encoder: Plain, specials: Collection[str], text: str) -> list[int]:
    """Ids of a text that may hold special tokens."""
    ids: list[int] = []
    for part, special in special_parts(text, specials):
        ids += [tok.special_tokens[part]] if special else encoder.encode(part)
    return ids


def encode_block(tok: Own, specials: Collection[str], text: str) -> "array[int]":
    """One job of `encode_blocks`."""
    return id_array(tok.vocab_size, encode(tok, text, set(specials)))


def encode_batch(tok: Own, end: int | None, batch: Batch) -> "array[int]":
    """One job of `encode_documents`."""
    ids: list[int] = []
    for piece in batch:
        if piece is not None:
            ids += tok._encoder.encode(piece)
        elif end is not None:
            ids.append(end)
    return id_array(tok.vocab_size, ids)


def count_words(
    task: Callable[[Batch], Counter[str]],
    texts: Documents,
    specials: Collection[str],
    cut: Callable[[str], int],
    workers: int,
) -> Counter[str]:
    """How often each word occurs; `task` counts those of some pieces."""
    words: Counter[str] = Counter()
    for found in in_order(task, batches(texts, specials, cut, BLOCK), workers):
        for word, n in found.items():  # quicker than words += found, which copies
            words[word] += n
    return words


def token_of(vocab: Mapping[int, bytes], i: int) -> bytes:
    """The bytes of an id. ValueError for an unknown one."""
    try:
        return vocab[index(i)]
    except KeyError:
        raise ValueError(f"unknown id {i}; the vocabulary has {len(vocab)} ids") from None


def decode_bytes(vocab: Mapping[int, bytes], ids: Iterable[int]) -> bytes:
    """Ids -> bytes, exactly. ValueError for an unknown id."""
    return b"".join(map(partial(token_of, vocab), ids))


def decode_stream(  # exercise: decode-stream
    vocab: Mapping[int, bytes], ids: Iterable[int]
) -> Iterator[str]:
    """Text as ids come in, whole characters only; bytes that are not UTF-8 become U+FFFD."""
    characters = codecs.getincrementaldecoder("utf-8")("replace")
    for i in ids:
        if text := characters.decode(token_of(vocab, i)):
            yield text
    if text := characters.decode(b"", final=True):
        yield text
