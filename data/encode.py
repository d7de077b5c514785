"""Texts -> ids: a tokenizer for them, and files of ids, a document at a time in bounded memory."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

import tok
from data.text import documents
from tok import END_OF_TEXT, UNKNOWN, Tokenizer
from tok.pieces import safe_pieces
from tok.train import TRAINERS
from tok.workers import workers_for

BLOCK = 1 << 20  # characters


def shown(text: Iterable[str], what: str, n_bytes: int) -> Iterator[str]:
    """The chunks, while a bar on stderr (only if it is a terminal) says how many have gone by."""
    with tqdm(
        desc=what, total=n_bytes, unit="B", unit_scale=True, delay=1, leave=False, disable=None
    ) as bar:
        read = 0
        for chunk in text:
            yield chunk
            size = len(chunk.encode())
            read += size
            bar.update(size)
    if read != n_bytes:
        raise ValueError("the text changed while it was read; start again when it is written")


def make_tokenizer(
    kind: str,
    vocab: int,
    train: Iterable[Iterable[str]],
    val: Iterable[Iterable[str]],
    *,
    ends: bool,
    workers: int = 1,
    specials: Sequence[str] = (),
) -> Tokenizer:
    """Train a tokenizer of a kind in `tok.train` on documents, or load the one at the path `kind`.

    `specials` are special tokens that a new one has beside <|endoftext|>.
    """
    if kind == "char":  # each must have an id; others learn from the training text only
        specials = (END_OF_TEXT, *specials) if ends else specials
        docs = chain(train, val)
        pieces = (piece for doc in docs for piece in safe_pieces(doc, specials, len, BLOCK))
        return tok.CharTokenizer(sorted(set[str]().union(*pieces)), specials)
    if kind in TRAINERS:
        with tqdm(desc="learning tokens", delay=1, leave=False, disable=None) as bar:
            return TRAINERS[kind](
                train,
                vocab,
                special_tokens=(END_OF_TEXT, *specials),
                workers=workers,
                step=lambda done: bar.update(done - bar.n),
            )
    if not Path(kind).is_file():
        known = " nor ".join(TRAINERS)
        raise ValueError(f"tokenizer={kind!r} is neither {known} nor a tokenizer's file")
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
        for ids in tokenizer.encode_documents(docs, end=end, workers=workers_for(n_bytes)):
            ids.tofile(out)
            n += len(ids)
        if cut and n:
            n -= 1
            out.truncate(n * ids.itemsize)
    return n


def unknown_line(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """What to say if some ids are [UNK]: their words are lost."""
    unknown = tokenizer.special_tokens.get(UNKNOWN)
    n = 0 if unknown is None else int(np.count_nonzero(ids == unknown))
    if not n:
        return ""
    return (
        f"{n:,} of {len(ids):,} tokens ({n / len(ids):.2%}) are {UNKNOWN}: words that the "
        "vocabulary can't spell; train one on text like this"
    )
