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


def read_text(path: str | os.PathLike[str]) -> str:
    r"""A UTF-8 file as it is, "\r\n" included; a byte-order mark at its head is dropped.

    ValueError for bytes that are not UTF-8, with the offset of the first.
    """
    return as_text(Path(path).read_bytes(), os.fspath(path)).removeprefix("\ufeff")


def as_text(data: bytes, name: str) -> str:
    """Decode UTF-8, or raise ValueError with the offset of the byte that is wrong."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise not_utf8(name, e, e.start) from None


def text_chunks(file: BinaryIO, name: str) -> Iterator[str]:
    """The same a block at a time: memory does not grow with the file."""
    decoder, read = codecs.getincrementaldecoder("utf-8")(), 0
    while data := file.read(BLOCK):
        at = read - len(decoder.getstate()[0])  # bytes of a character that the last block began
        read += len(data)
        try:
            yield decoder.decode(data)
        except UnicodeDecodeError as e:
            raise not_utf8(name, e, at + e.start) from None
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as e:
        raise not_utf8(name, e, read - len(e.object)) from None


def not_utf8(name: str, e: UnicodeDecodeError, at: int) -> ValueError:
    """The error for a byte at an offset."""
    return ValueError(
        f"{name}: not UTF-8 at byte {at} (0x{e.object[e.start]:02x}); "
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


@contextmanager
def output_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that appears when all is written, and not at all after an error; "-" is stdout.

    OSError, naming the path, if it can't be written.
    """
    if path == "-":
        yield sys.stdout.buffer
        return
    with beside(path) as temporary:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)


def check_place(path: str | os.PathLike[str]) -> None:
    """OSError now, not after minutes of work, if no file can be written there."""
    if path != "-":
        with beside(path) as temporary, open(temporary, "wb"):
            pass


@contextmanager
def beside(path: str | os.PathLike[str]) -> Iterator[str]:
    """The name of a temporary file in the same folder, gone at the end. Errors name the path."""
    name = os.fspath(path)
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


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file by way of a temporary: a crash leaves the old file or the new one."""
    with output_file(path) as file:
        file.write(data)
