"""Ids as bytes: little-endian uint16, or uint32 where a vocabulary has more than 65,536 ids."""

import sys
from array import array
from collections.abc import Iterable


def id_array(vocab_size: int, ids: Iterable[int] = ()) -> "array[int]":
    """Ids in an array as wide as the vocabulary needs."""
    return array("H" if vocab_size <= 1 << 16 else "I", ids)


def to_bytes(ids: "array[int]") -> bytes:
    """Ids as they are stored in a file."""
    return little_endian(ids).tobytes()


def from_bytes(vocab_size: int, data: bytes, name: str) -> "array[int]":
    """Ids from a file's bytes. ValueError for a partial last item."""
    ids = id_array(vocab_size)
    if extra := len(data) % ids.itemsize:
        raise ValueError(
            f"{name}: {len(data)} bytes is not a multiple of {ids.itemsize}, the last id is cut; "
            f"was it written with this tokenizer? {extra} bytes too many"
        )
    ids.frombytes(data)
    return little_endian(ids)


def little_endian(ids: "array[int]") -> "array[int]":
    """A copy of ids, changed from this machine's byte order to little-endian, or back."""
    ids = ids[:]
    if sys.byteorder == "big":
        ids.byteswap()
    return ids
