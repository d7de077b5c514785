r"""Text -> words by BERT's rules (BasicTokenizer): clean, lowercase, strip accents, split.

A character's fate never depends on its neighbours, so the rules are one table, character -> text:
nothing for a control character, a blank for white space, blanks around a sign of punctuation and
around a Chinese character, which each stand alone. What `str.split` then finds is the words.

Unicode's categories are those of version 8, as the library `tokenizers` has them: text that
Unicode has gained since is plain, so that ids are the same in every Python.
"""

import re
from unicodedata import category, normalize

NEWER = """ 5c8-5c9 61d 7fd 890-8e2 9fd-9fe a76 afa-aff b53-b55 c04-c3c c77 c84 d00 d3b-d3c d81 eba
ece 180f-1886 1abf-1af0 1b4e-1b4f 1b7d-1b7f 1df6-1dfb 2e43-2e63 a82c a8c5 a8ff a9bd 10d24-10f89
11070-11074 110c2-110cd 111cf 1123e-11241 1133b 113bb-1145e 11660-1166c 116b9 1182f-11fff
12ff1-1612f 16d6d-16f4f 16fe2-16fe4 1cf00-1d128 1d25b-1d25c 1e000-1e6f5 1e944-1e95f """
OLDER = {"\u166d": "P", "\u1734": "M", "\U0001171e": "M", "\U000111c9": "P"}  # changed since
CJK = "3400-4dbf 4e00-9fff f900-faff 20000-2a6df 2a700-2b81f 2b920-2ceaf 2f800-2fa1f"
ASCII_SIGNS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")  # "$" and "+" are no P of Unicode
SPACE = "\t\n\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
BLANKS, UNIT = re.compile(f"[{SPACE}]+"), re.compile(f"[^{SPACE}]+")
JOINED = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"  # `str.split` splits at them, BERT leaves them out


def ranges(text: str) -> list[range]:
    """Code points: "61d 7fd-800" -> [range(0x61D, 0x61E), range(0x7FD, 0x801)]."""
    ends = [part.split("-") for part in text.split()]
    return [range(int(a[0], 16), int(a[-1], 16) + 1) for a in ends]


NEWER_RANGES, CJK_RANGES = ranges(NEWER), ranges(CJK)


def is_in(code: int, found: list[range]) -> bool:
    """Whether one of the ranges has a code point."""
    return any(code in r for r in found)


def kind(char: str) -> str:
    """What BERT takes a character for: "C" left out, "Z" blank, "P" sign, "M" accent, "" text."""
    if char in OLDER:
        return OLDER[char]
    if BLANKS.fullmatch(char):
        return "Z"
    if char in "\0\ufffd":
        return "C"
    found = "" if is_in(ord(char), NEWER_RANGES) else category(char)
    if char in ASCII_SIGNS or found.startswith("P"):
        return "P"
    if found == "Mn":
        return "M"
    return "C" if found in ("Cc", "Cf", "Co") else ""


class Spelling(dict[int, str]):
    """Code point -> what stands for it, found when it is first asked for: for `str.translate`."""

    def __init__(self, lowercase: bool, strip_accents: bool, cjk: bool):
        super().__init__()
        self.how = lowercase, strip_accents, cjk

    def __missing__(self, code: int) -> str:
        self[code] = text = self.spell(chr(code))
        return text

    def spell(self, char: str) -> str:
        """É -> e, "," -> " , ", a control character -> nothing."""
        lowercase, strip_accents, cjk = self.how
        if kind(char) in ("C", "Z"):
            return " " if kind(char) == "Z" else ""
        parts = [char]
        if strip_accents:
            old = not is_in(ord(char), NEWER_RANGES)
            parts = [c for c in (normalize("NFD", char) if old else char) if kind(c) != "M"]
        if lowercase:
            parts = [low for c in parts for low in c.lower()]
        text = "".join(f" {c} " if kind(c) == "P" else c for c in parts)
        return f" {text} " if cjk and is_in(ord(char), CJK_RANGES) else text


class Splitter:
    """BERT's rules at work. `strip_accents=None`: as `lowercase` says.

    `Splitter().words("Él, 中文!")` -> ["el", ",", "中", "文", "!"].
    """

    def __init__(self, lowercase: bool = True, strip_accents: bool | None = None, cjk: bool = True):
        self.how = lowercase, strip_accents, cjk
        strip = lowercase if strip_accents is None else strip_accents
        self.spelling = Spelling(lowercase, strip, cjk)

    def __reduce__(self) -> tuple[type["Splitter"], tuple[bool, bool | None, bool]]:
        return Splitter, self.how

    def words(self, text: str) -> list[str]:
        """The words of a text, in order."""
        return text.translate(self.spelling).split()

    def units(self, text: str) -> list[str]:
        """The text cut at white space: the words of each, one after the other, are `words(text)`.

        They repeat, so each different one is split once.
        """
        if any(c in text for c in JOINED):
            return BLANKS.split(text)
        return text.split()

    def cut(self, text: str) -> int:
        """The last position where the text can be cut and give the same words; 0 for none."""
        return max(map(text.rfind, " \n\t\r")) + 1

    def placed(self, text: str) -> list[tuple[str, list[int]]]:
        """The words, and for each of their characters the position in the text that it is from.

        "A né" -> [("a", [0]), ("ne", [2, 3])].
        """
        found: list[tuple[str, list[int]]] = []
        word, where = "", list[int]()
        for i, char in enumerate(text + " "):
            for c in self.spelling[ord(char)]:
                if c != " ":
                    word += c
                    where.append(i)
                elif word:
                    found.append((word, where))
                    word, where = "", []
        return found
