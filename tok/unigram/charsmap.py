"""SentencePiece's compiled rules: texts to write otherwise, such as "ﬁ" -> "fi", the longest first.

Four bytes say how long the trie is, behind it are the texts to write, each ended by a zero. The
trie is a double array of 32-bit units (Darts-clone): the child for a byte of the unit at `at` is at
at ^ offset ^ byte, if the label there is that byte. Each step is held against the array's length.
"""

import re
import struct
from collections.abc import Collection, Iterator

DEEP = 64  # characters that a rule may have


class CharsMap:
    """Rules at work; `kept` are texts that none of them touches. ValueError for damaged ones."""

    def __init__(self, data: bytes, kept: Collection[str] = ()):
        size = int.from_bytes(data[:4], "little")
        if size % 4 or not 4 <= size < len(data) - 4:
            raise ValueError(f"the rules' trie has {size} of {len(data)} bytes")
        self.units: tuple[int, ...] = struct.unpack(f"<{size // 4}I", data[4 : 4 + size])
        self.texts, self.kept = data[4 + size :], set(kept)
        first = "".join(re.escape(chr(b)) for b in range(1, 128) if self.begins(b))
        names = "|".join(map(re.escape, sorted(kept, key=len, reverse=True)))
        self.places = re.compile(
            (f"{names}|" if names else "")
            + (f"[{first}]|" if first else "")
            + r"[^\0-\x7f]|[\0-\x7f](?=[^\0-\x7f])"
        )

    def child(self, at: int, byte: int) -> int:
        """The position of a child, -1 if there is none. `at` begins the children of its parent."""
        position = at ^ byte
        found = position < len(self.units) and self.units[position] & 0x800000FF == byte
        return position if found and byte else -1

    def below(self, position: int) -> int:
        """Where the children of the unit at a position begin."""
        unit = self.units[position]
        return position ^ (unit >> 10 << (unit >> 6 & 8))

    def begins(self, byte: int) -> bool:
        """Whether a rule of ASCII characters alone may begin so."""
        at = self.child(self.below(0), byte)
        if at < 0:
            return False
        here = self.units[at] >> 8 & 1
        return bool(here) or any(self.child(self.below(at), b) >= 0 for b in range(1, 128))

    def longest(self, data: bytes) -> tuple[int, str] | None:
        """The bytes at the beginning that the longest rule takes, and what it writes."""
        found, at = None, self.below(0)
        for i, byte in enumerate(data, 1):
            if (position := self.child(at, byte)) < 0:
                break
            at = self.below(position)
            if self.units[position] >> 8 & 1:
                found = i, at
        return (found[0], self.text(found[1])) if found else None

    def text(self, leaf: int) -> str:
        """The text that a leaf points to."""
        start = self.units[leaf] & 0x7FFFFFFF if leaf < len(self.units) else len(self.texts)
        end = self.texts.find(b"\0", start)
        if start >= len(self.texts) or end < 0:
            raise ValueError("the rules' trie points outside of their texts")
        return self.texts[start:end].decode("utf-8")

    def parts(self, text: str) -> Iterator[str]:
        """The text in parts, those that a rule takes as it writes them."""
        end = 0
        for m in self.places.finditer(text):
            start = m.start()
            if start < end or m[0] in self.kept:
                continue
            if found := self.longest(text[start : start + DEEP].encode("utf-8")):
                yield text[end:start]
                yield found[1]
                end = start + len(text[start : start + DEEP].encode("utf-8")[: found[0]].decode())
        yield text[end:]
