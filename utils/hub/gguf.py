"""GGUF, llama.cpp's file format: read with every count checked against the file, and written.

A file is a magic word, a version, metadata (key, kind, value), a table of tensors, and their
data, each aligned. Nothing is allocated that the file is not large enough for.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

MAGIC, VERSIONS = b"GGUF", (2, 3)
NUMBERS = dict(
    enumerate(["B", "b", "H", "h", "I", "i", "f", "?", ".", ".", "Q", "q", "d"])
)  # kind -> struct's letter
STRING, ARRAY = 8, 9
F32, F16, BF16 = 0, 1, 30
PLAIN: dict[int, tuple[str, Any]] = {  # kind -> name, and how it is read
    F32: ("F32", np.dtype("<f4")),
    F16: ("F16", np.dtype("<f2")),
    BF16: ("BF16", np.dtype("<u2")),
}
LONGEST = 1 << 16  # bytes of a name
TABLE = 1 << 16  # tensors, or keys


class Cursor:
    """Reads numbers and texts of a file in order. ValueError where it ends too soon."""

    def __init__(self, raw: mmap.mmap | bytes) -> None:
        self.raw, self.at, self.size = raw, 0, len(raw)

    def left(self) -> int:
        """Bytes that have not been read."""
        return self.size - self.at

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        if n > self.left():
            raise ValueError(f"it ends at byte {self.size}, where {n} more are promised")
        self.at += n
        return self.raw[self.at - n : self.at]

    def number(self, letter: str) -> Any:
        """The next number, by struct's letter."""
        return struct.unpack("<" + letter, self.take(struct.calcsize(letter)))[0]

    def text(self, most: int) -> str:
        """The next text: its length, its UTF-8. ValueError for more than `most` bytes."""
        n = self.number("Q")
        if n > most:
            raise ValueError(f"a text of {n} bytes at byte {self.at}")
        try:
            return self.take(n).decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"a text that is not UTF-8 at byte {self.at - n}") from None

    def value(self) -> Any:
        """The next value of the metadata, after its kind."""
        kind = self.number("I")
        return self.array() if kind == ARRAY else self.single(kind)

    def single(self, kind: int) -> Any:
        """A number or a text."""
        if kind == STRING:
            return self.text(self.left())
        if kind not in NUMBERS or NUMBERS[kind] == ".":
            raise ValueError(f"unknown kind {kind} of a value at byte {self.at}")
        value = self.number(NUMBERS[kind])
        return float(str(np.float32(value))) if NUMBERS[kind] == "f" else value  # 1e-05, no tail

    def array(self) -> Any:
        """An array of numbers, or a list of texts."""
        kind, n = self.number("I"), self.number("Q")
        if kind != STRING and (kind not in NUMBERS or NUMBERS[kind] == "."):
            raise ValueError(f"an array of unknown kind {kind} at byte {self.at}")
        least = 8 if kind == STRING else struct.calcsize(NUMBERS[kind])
        if n * least > self.left():
            raise ValueError(f"an array of {n} values at byte {self.at}, more than the file has")
        if kind == STRING:
            return [self.text(self.left()) for _ in range(n)]
        return np.frombuffer(self.take(n * least), "<" + NUMBERS[kind])


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies in the file, and how."""

    name: str
    shape: tuple[int, ...]  # as PyTorch has it, the slowest dimension first
    kind: int  # ggml's number of the data type
    start: int
    size: int  # bytes


def block_of(kind: int) -> tuple[int, int]:
    """Values in a block of a data type, and its bytes. ValueError for an unknown one."""
    if kind in PLAIN:
        return 1, PLAIN[kind][1].itemsize
    gguf = package()
    try:
        return gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    except (KeyError, ValueError):
        raise ValueError(f"unknown data type {kind} of a tensor") from None


def package() -> Any:
    """The package gguf, which knows quantized blocks. ValueError where it is missing."""
    try:
        import gguf
    except ImportError:
        raise ValueError("this needs the package gguf: pip install 'llm-tiny[hub]'") from None
    return gguf


class GGUFFile:
    """An open file: `metadata`, `tensors` by name, `array(name)`. ValueError if it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            size = path.stat().st_size
            self.raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        try:
            self.metadata, self.tensors = self.parse(Cursor(self.raw))
        except ValueError as e:
            raise ValueError(f"{path} is no whole GGUF file: {e}") from None

    def parse(self, cursor: Cursor) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Metadata, and the table of tensors."""
        if cursor.take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        version, n_tensors, n_keys = (cursor.number(x) for x in "IQQ")
        if version not in VERSIONS:
            raise ValueError(f"version {version}; known are 2 and 3, little-endian")
        if max(n_tensors, n_keys) > TABLE:
            raise ValueError(f"{n_tensors} tensors and {n_keys} keys")
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = cursor.text(LONGEST)
            if key in metadata:
                raise ValueError(f"{key} is there twice")
            metadata[key] = cursor.value()
        rows = [self.row(cursor) for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 16:
            raise ValueError(f"general.alignment={alignment!r}")
        base = -(-cursor.at // alignment) * alignment
        return metadata, self.table(rows, base, alignment, cursor.size)

    def row(self, cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
        """One line of the table: name, shape, data type, offset."""
        name, n = cursor.text(LONGEST), cursor.number("I")
        if not 1 <= n <= 4:
            raise ValueError(f"{name!r} has {n} dimensions")
        shape = tuple(cursor.number("Q") for _ in range(n))[::-1]
        return name, shape, cursor.number("I"), cursor.number("Q")

    def table(
        self, rows: list[tuple[str, tuple[int, ...], int, int]], base: int, align: int, end: int
    ) -> dict[str, Tensor]:
        """The tensors, of which none leaves the file, overlaps another, or has a name twice."""
        tensors: dict[str, Tensor] = {}
        for name, shape, kind, offset in rows:
            values, size = 1, 0
            for n in shape:
                values *= n
            per, n_bytes = block_of(kind)
            if not values or shape[-1] % per:
                raise ValueError(f"{name!r} has the shape {shape}, in blocks of {per}")
            size = values // per * n_bytes
            if name in tensors or offset % align or base + offset + size > end:
                raise ValueError(f"{name!r} is there twice, or not inside the file")
            tensors[name] = Tensor(name, shape, kind, base + offset, size)
        ordered = sorted(tensors.values(), key=lambda t: t.start)
        for one, other in pairwise(ordered):
            if one.start + one.size > other.start:
                raise ValueError(f"{one.name!r} and {other.name!r} overlap")
        return tensors

    def array(self, name: str) -> np.ndarray:
        """A tensor as float32, dequantized if it is quantized."""
        t = self.tensors[name]
        raw = np.frombuffer(self.raw, np.uint8, t.size, t.start)
        if t.kind not in PLAIN:
            gguf = package()
            rows = raw.reshape(*t.shape[:-1], -1)
            try:
                found: np.ndarray = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(t.kind))
            except NotImplementedError:
                kind = f"{name_of(t.kind)}, which the package gguf can't read"
                raise ValueError(f"{name!r} is of the data type {kind}; convert it") from None
            return found.reshape(t.shape)
        numbers: np.ndarray = raw.view(PLAIN[t.kind][1]).reshape(t.shape)
        if t.kind != BF16:
            return numbers.astype(np.float32)
        wide: np.ndarray = numbers.astype(np.uint32) << 16  # it is the upper half of float32
        return wide.view(np.float32)

    def types(self) -> str:
        """The data types of the matrices, most frequent first: "Q4_1, F32"."""
        counts: dict[int, int] = {}
        for t in self.tensors.values():
            counts[t.kind] = counts.get(t.kind, 0) + t.size
        kinds = sorted(counts, key=lambda kind: -counts[kind])
        return ", ".join(name_of(kind) for kind in kinds)


def name_of(kind: int) -> str:
    """A data type's name."""
    return PLAIN[kind][0] if kind in PLAIN else package().GGMLQuantizationType(kind).name


def arrays(file: GGUFFile) -> Iterator[tuple[str, np.ndarray]]:
    """Each tensor as float32, one at a time."""
    for name in file.tensors:
        yield name, file.array(name)
