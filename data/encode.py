"""Texts -> ids: a tokenizer for them, and files of ids, a document at a time in bounded memory."""

import os
import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from tqdm import tqdm

import tok
from data.text import END_OF_TEXT, documents
from tok.special import safe_texts

BLOCK = 1 << 20  # characters
LARGE = 8_000_000  # bytes; below, other processes cost more than they give
Tokenizer = tok.BPETokenizer | tok.CharTokenizer


def workers_for(n_bytes: int) -> int:
    """How many processes to use: one a CPU where the text is large."""
    if n_bytes < LARGE:
        return 1
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def shown(text: Iterable[str], what: str, n_bytes: int) -> Iterator[str]:
    """The chunks, while a bar on stderr (only if it is a terminal) says how many have gone by."""
    with tqdm(
        desc=what, total=n_bytes, unit="B", unit_scale=True, delay=1, leave=False, disable=None
    ) as bar:
        for chunk in text:
            yield chunk
            bar.update(len(chunk.encode()))


def encode_documents(
    tokenizer: Tokenizer, docs: Iterable[Iterable[str]], end: int | None, workers: int
) -> Iterator["array[int]"]:
    """The ids of each document by itself, then `end`, in arrays of uint16 or uint32."""
    for doc in docs:
        for ids in tokenizer.encode_blocks(doc, workers=1 if end is not None else workers):
            yield ids
        if end is not None:
            yield array(ids.typecode, [end])


def make_tokenizer(
    kind: str,
    vocab: int,
    train: Iterable[Iterable[str]],
    val: Iterable[Iterable[str]],
    *,
    ends: bool,
    workers: int = 1,
) -> Tokenizer:
    """Train a `char` or `bpe` tokenizer on documents, or load the one at the path `kind`."""
    if kind == "char":  # each must have an id; merges, though, are learnt from training text only
        specials = (END_OF_TEXT,) if ends else ()
        docs = chain(train, val)
        pieces = (piece for doc in docs for piece in safe_texts(doc, specials, len, BLOCK))
        return tok.CharTokenizer.train(pieces, special_tokens=specials)
    if kind == "bpe":
        with tqdm(desc="learning merges", delay=1, leave=False, disable=None) as bar:
            return tok.BPETokenizer.train(
                train,
                vocab,
                special_tokens=(END_OF_TEXT,),
                workers=workers,
                step=lambda done: bar.update(done - bar.n),
            )
    if not Path(kind).is_file():
        raise ValueError(f"tokenizer={kind!r} is neither char nor bpe nor a tokenizer's file")
    return tok.load(kind)


def write_ids(
    file: Path,
    tokenizer: Tokenizer,
    text: Iterable[str],
    doc_sep: str,
    n_bytes: int,
    *,
    end: int | None = None,
    cut: bool = False,
) -> int:
    """Encode a text of n_bytes into a file of uint16 or uint32; returns the number of ids.

    With `end`, that id follows each document, but for the last one if it is `cut`.
    """
    docs = documents(shown(text, f"encoding {file.stem}", n_bytes), doc_sep)
    n = 0
    with open(file, "wb") as out:
        for ids in encode_documents(tokenizer, docs, end, workers_for(n_bytes)):
            ids.tofile(out)
            n += len(ids)
        if cut and n:
            n -= 1
            out.truncate(n * ids.itemsize)
    return n
