r"""Text -> words. No merge crosses the edge of a word, so the split decides what a token can be.

A named pattern also has a coarse twin: the same cuts at white space, and letters, digits and signs
left together. The coarse units come several times cheaper, they repeat, and each of them splits by
itself into the very words that it gives inside the text. So each different unit is split once.
"""

import re

import regex

SPACE = (
    r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # re's \s has \x1c-\x1f too
)

PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s+(?!\S)|\s++",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "none": r"(?s:.+)",
}
COARSE = {
    "gpt2": rf" ?[^{SPACE}]+|[{SPACE}]+(?![^{SPACE}])|[{SPACE}]",
    # signs take the line breaks after them, letters take any blank before them
    "gpt4": rf"[^\S\r\n]?[^{SPACE}]+(?:[{SPACE}]+\Z|[{SPACE}]*[\r\n])?"
    rf"|[{SPACE}]+\Z|[{SPACE}]*[\r\n]|[{SPACE}]+(?![^{SPACE}])|[{SPACE}]",
}
CUT = re.compile(rf"(?s:.*[^{SPACE}])(?= )")


class Splitter:
    r"""A pattern at work: `gpt2`, `gpt4`, `none` (the text is one word) or any regular expression.

    ValueError for an expression that does not compile.
    `Splitter("gpt2").words("it's 2 o'clock")` -> ["it", "'s", " 2", " o", "'", "clock"].
    """

    def __init__(self, pattern: str = "gpt2"):
        self.pattern = pattern
        self.expression = PATTERNS.get(pattern, pattern)
        try:
            self._fine = regex.compile(self.expression)
        except regex.error as e:
            names = ", ".join(PATTERNS)
            raise ValueError(f"pattern {pattern!r} does not compile: {e}; try {names}") from None
        coarse = COARSE.get(pattern)
        self._units = re.compile(coarse).findall if coarse else self.words

    def words(self, text: str) -> list[str]:
        """All of the text in order, cut into words; ValueError where the pattern skips a place."""
        if self.pattern in PATTERNS or not self._fine.groups:
            words: list[str] = self._fine.findall(text)
        else:
            words = [m[0] for m in self._fine.finditer(text)]
        if self.pattern not in PATTERNS and sum(map(len, words)) < len(text):
            self._refuse(text)
        return words if self.pattern in PATTERNS else list(filter(None, words))

    def units(self, text: str) -> list[str]:
        """The text in coarser pieces: the words of each, one after the other, are `words(text)`."""
        return self._units(text)

    def safe_cut(self, text: str) -> int:
        """The last place where the text can be cut and give the same words; 0 where none is known.

        Named patterns begin a word at a blank after a sign, whatever comes next.
        """
        found = CUT.match(text) if self.pattern in COARSE else None
        return found.end() if found else 0

    def _refuse(self, text: str) -> None:
        at = 0
        for m in self._fine.finditer(text):
            if m.start() > at:
                break
            at = m.end()
        raise ValueError(
            f"pattern {self.pattern!r} skips {text[at]!r} at character {at}; "
            r"end it with |\s+|\S so that it covers any text"
        )
