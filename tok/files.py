"""Text files in, any file out: whole or not at all."""

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 20  # bytes
MARK = "\ufeff"  # the byte-order mark, which some editors put before the text


def read_text(path: str | os.PathLike[str]) -> str:
    r"""A UTF-8 file as it is, "\r\n" included; a byte-order mark at its head is dropped.

    ValueError for bytes that are not UTF-8, with the offset of the first.
    """
    return as_text(Path(path).read_bytes(), os.fspath(path))


def as_text(data: bytes, name: str) -> str:
    """UTF-8 -> text without byte-order mark; ValueError with the offset of a byte that is wrong."""
    try:
        return data.decode("utf-8").removeprefix(MARK)
    except UnicodeDecodeError as e:
        raise not_utf8(name, e, e.start) from None


def text_chunks(file: BinaryIO, name: str) -> Iterator[str]:
    """The same a block at a time: memory does not grow with the file."""
    decoder, read, mark = codecs.getincrementaldecoder("utf-8")(), 0, MARK
    more = True
    while more:
        data = file.read(BLOCK)
        read += len(data)
        more = bool(data)
        try:
            text = decoder.decode(data, final=not more)
        except UnicodeDecodeError as e:  # e.object: what was left over from before, and the block
            raise not_utf8(name, e, read - len(e.object) + e.start) from None
        if text:
            yield text.removeprefix(mark)
            mark = ""


def not_utf8(name: str, e: UnicodeDecodeError, offset: int) -> ValueError:
    """The error for a byte at an offset."""
    return ValueError(
        f"{name}: not UTF-8 at byte {offset} (0x{e.object[e.start]:02x}); "
        "save it as UTF-8, for example with iconv -f LATIN1 -t UTF-8"
    )


@contextmanager
def input_file(name: str) -> Iterator[BinaryIO]:
    """Open a file to read its bytes; "-" is stdin."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with open(name, "rb") as file:
        yield file


def is_device(name: str) -> bool:
    """Whether it is a pipe or a device, such as /dev/null, which no file may replace."""
    return os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name)


@contextmanager
def temporary_for(name: str) -> Iterator[str]:
    """The name of a temporary file in the same folder, gone at the end."""
    if os.path.isdir(name):
        raise IsADirectoryError(errno.EISDIR, "is a directory; give the name of a file", name)
    temporary = f"{name}.{os.getpid()}.tmp"
    try:
        yield temporary
    except OSError as e:
        if e.filename != temporary:
            raise
        raise type(e)(e.errno, e.strerror, name) from None
    finally:
        with suppress(OSError):
            os.unlink(temporary)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:  # exercise: whole-files
    """The name of a temporary file to write, which replaces `path` at the end.

    After an error the old file is still there and the temporary is gone. OSErrors name the path.

    >>> with replacing("a.txt") as temporary:
    ...     Path(temporary).write_text("new", encoding="utf-8")
    """
    name = os.fspath(path)
    if is_device(name):
        yield name
        return
    with temporary_for(name) as temporary:
        yield temporary
        os.replace(temporary, name)


@contextmanager
def output_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file to write bytes, whole or not at all; "-" is stdout."""
    if path == "-":
        yield sys.stdout.buffer
        return
    with replacing(path) as temporary, open(temporary, "wb") as file:
        yield file


def check_writable(path: str | os.PathLike[str]) -> None:
    """OSError now, not after minutes of work, if no file can be written there."""
    name = os.fspath(path)
    if name != "-" and not is_device(name):
        with temporary_for(name) as temporary, open(temporary, "wb"):
            pass
