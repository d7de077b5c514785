r"""Text files as streams: read, clean, divide into documents, split. Memory stays bounded.

A text is an iterable of chunks (strings) that can be read again from its start: a list, or a
`Text`. A chunk may end anywhere, in the middle of a separator too.
"""

import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from tok import END_OF_TEXT
from tok.files import text_chunks

BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class Text:
    """A text that lies somewhere else: each `iter` reads its chunks again from the start."""

    read: Callable[[], Iterator[str]]

    def __iter__(self) -> Iterator[str]:
        return self.read()


def clean(file: BinaryIO, name: str) -> Iterator[str]:
    r"""A file's text without byte-order mark, \r\n and \r as \n.

    ValueError, with the offset in bytes, for what is not UTF-8 or binary; at the end if blank.
    """
    newlines, blank = io.IncrementalNewlineDecoder(None, translate=True), True
    for chunk in text_chunks(file, name):
        if "\0" in chunk:
            raise ValueError(
                f"{name} is binary (NUL at offset {first_nul(file)}); give a text file"
            )
        blank = blank and not chunk.strip()
        yield newlines.decode(chunk)
    yield newlines.decode("", final=True)  # a \r that might have been half of \r\n
    if blank:
        raise ValueError(f"{name} is empty; give a text of some thousand characters")


def first_nul(file: BinaryIO) -> int:
    """The offset of a file's first zero byte."""
    file.seek(0)
    blocks = iter(partial(file.read, BLOCK), b"")
    return next(i * BLOCK + block.index(0) for i, block in enumerate(blocks) if 0 in block)


def read_chunks(path: str | os.PathLike[str]) -> Iterator[str]:
    """The cleaned chunks of a text file. ValueError or OSError name what is wrong with it."""
    if Path(path).is_dir():
        raise ValueError(f"{path} is a directory; give a text file in it")
    if Path(path).is_fifo():
        raise ValueError(f"{path} is a pipe, and a text is read several times; give a file")
    with open(path, "rb") as file:
        yield from clean(file, str(path))


def text_file(path: str | os.PathLike[str]) -> Text:
    """The cleaned text of a file, read when it is asked for."""
    return Text(partial(read_chunks, path))


def read_text(path: str | os.PathLike[str]) -> str:
    """The same as one string, for texts that fit in memory."""
    return "".join(read_chunks(path))


def text_sha256(text: Iterable[str]) -> str:
    """Hexadecimal SHA-256 of a text's UTF-8."""
    digest = hashlib.sha256()
    for chunk in text:
        digest.update(chunk.encode())
    return digest.hexdigest()


def join(texts: Iterable[Iterable[str]], sep: str) -> Iterator[str]:
    """The chunks of several texts, a separator between two."""
    for i, text in enumerate(texts):
        if i:
            yield sep
        yield from text


def part(text: Iterable[str], start: int, stop: int = sys.maxsize) -> Iterator[str]:
    """Characters start to stop: ["abc", "de"], 1, 4 -> "bc", "d"."""
    at = 0
    for chunk in text:
        if at + len(chunk) > start:
            yield chunk[max(start - at, 0) : stop - at]
        at += len(chunk)
        if at >= stop:
            return


def numbered(text: Iterable[str], doc_sep: str) -> Iterator[tuple[int, str]]:
    """(document, piece of it): ["a--b", "c"], "--" -> (0, "a"), (1, "b"), (1, "c")."""
    number, rest = 0, ""
    for chunk in text:
        *ended, rest = (rest + chunk).split(doc_sep)
        for piece in ended:
            yield number, piece
            number += 1
        sure = max(0, len(rest) - len(doc_sep) + 1)  # a separator may begin after it
        yield number, rest[:sure]
        rest = rest[sure:]
    yield number, rest


def documents(text: Iterable[str], doc_sep: str) -> Iterator[Iterator[str]]:
    """Divide a text at doc_sep, blank documents left out; with no doc_sep it is one document.

    Each is an iterator of chunks, to be read before the next one, as with itertools.groupby.
    """
    if not doc_sep:
        yield iter(text)
        return
    for _, group in groupby(numbered(text, doc_sep), itemgetter(0)):
        pieces, head = map(itemgetter(1), group), []
        for piece in pieces:
            head.append(piece)
            if piece.strip():
                yield chain(head, pieces)
                break


def find(text: Iterable[str], what: str, start: int) -> int:
    """Like str.find: where `what` begins, at `start` or later, or -1."""
    rest = ""
    for chunk in part(text, start):
        rest += chunk
        if (i := rest.find(what)) >= 0:
            return start + i
        sure = max(0, len(rest) - len(what) + 1)
        start, rest = start + sure, rest[sure:]
    return -1


def split_text(  # exercise: split-text
    text: Iterable[str], doc_sep: str = END_OF_TEXT, share: float = 0.1
) -> tuple[Text, Text]:
    """(train, val): cut at int(0.9 n) as nanoGPT does, or where the next document starts."""
    cut = int(sum(map(len, text)) * (1 - share))
    border = find(text, doc_sep, max(0, cut - len(doc_sep) + 1)) if doc_sep else -1
    after = border + len(doc_sep)
    if border >= 0 and any(chunk.strip() for chunk in part(text, after)):
        cut = after
    return Text(partial(part, text, 0, cut)), Text(partial(part, text, cut))


def split_documents(
    text: Iterable[str], doc_sep: str = END_OF_TEXT, share: float = 0.1
) -> tuple[Text, Text]:
    """(train, val): a document goes where the hash of its text says, about `share` to val.

    So equal documents stay together, and a text that grows keeps each where it was. ValueError if
    one side would be empty.
    """
    to_val = bytearray(
        int(stripped_sha256(doc)[:12], 16) < share * 16**12 for doc in documents(text, doc_sep)
    )
    if not 0 < sum(to_val) < len(to_val):
        raise ValueError(
            f"{len(to_val)} documents are too few to split by document; "
            f"leave out --split document, or set --doc_sep"
        )
    train, val = (Text(partial(chosen, text, doc_sep, to_val, side)) for side in (0, 1))
    return train, val


def stripped_sha256(doc: Iterable[str]) -> str:
    """The hash of a document without the white space around it."""
    digest, space, begun = hashlib.sha256(), "", False
    for piece in doc:
        piece = space + piece if begun else piece.lstrip()
        body = piece.rstrip()
        digest.update(body.encode())
        space, begun = piece[len(body) :], begun or bool(body)
    return digest.hexdigest()


def chosen(text: Iterable[str], doc_sep: str, to_val: bytearray, side: int) -> Iterator[str]:
    """The documents of one side, doc_sep after each."""
    for doc, goes in zip(documents(text, doc_sep), to_val, strict=True):
        if goes == side:
            yield from doc
            yield doc_sep


SPLITS = {"tail": split_text, "document": split_documents}


def unescape(sep: str) -> str:
    r"""A separator as a shell hands it over: backslash and n, two characters, mean a line's end."""
    return sep.replace(r"\n", "\n").replace(r"\t", "\t")
