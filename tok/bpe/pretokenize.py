r"""Text -> words. No merge crosses the edge of a word, so the split decides what a token can be.

A named pattern also has a coarse twin: the same cuts at white space, and letters, digits and signs
left together. The coarse units come several times cheaper, they repeat, and each of them splits by
itself into the very words that it gives inside the text. So each different unit is split once.
"""

import re

import regex

BLANK = r"\t\v\f \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
SPACE = rf"\r\n{BLANK}"  # spelt out: the \s of `re` has \x1c-\x1f too, that of `regex` has not

PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s+(?!\S)|\s++",
    # SmolLM2: digits one by one, and what stands between two of them by itself
    "gpt2_digits": r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?[^\s\p{L}\p{N}]++"
    r"|\s+(?![^\s\p{N}])|\s++",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    # as LLaMA 3 writes it
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "spaces": r" ?[^ ]++| +(?![^ ])| ++",  # a blank and all up to the next one, line breaks as well
    "metaspace": r" [^ ]*+|[^ ]++",  # as SentencePiece does: each blank begins a word
    "none": r"(?s:.+)",
}
ASCII = {  # the same for text without other letters, where `re` takes half of `regex`'s time
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+"
    r"|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+",
    "gpt2_digits": r"[0-9]|'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[^\t-\r A-Za-z0-9]+"
    r"|[\t-\r ]+(?![^\t-\r 0-9])|[\t-\r ]+",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}"
    r"| ?[^\t-\r A-Za-z0-9]+[\r\n]*|[\t-\r ]+\Z|[\t-\r ]*[\r\n]|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]",
    "llama3": r"'(?i:[sdmt]|ll|ve|re)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}"
    r"| ?[^\t-\r A-Za-z0-9]+[\r\n]*|[\t-\r ]*[\r\n]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+",
    "spaces": r" ?[^ ]+| +(?![^ ])| +",
    "metaspace": r" [^ ]*|[^ ]+",
}
COARSE = {
    "gpt2": rf" ?[^{SPACE}]+|[{SPACE}]+(?![^{SPACE}])|[{SPACE}]",
    # a digit leaves the blank before it alone, so blanks stay with what follows them
    "gpt2_digits": rf"[{SPACE}]*[^{SPACE}]+|[{SPACE}]+",
    # signs take the line breaks after them, letters take any blank before them
    "gpt4": rf"[{BLANK}]?[^{SPACE}]+(?:[{SPACE}]+\Z|[{SPACE}]*[\r\n])?"
    rf"|[{SPACE}]+\Z|[{SPACE}]*[\r\n]|[{SPACE}]+(?![^{SPACE}])|[{SPACE}]",
    "llama3": rf"[{BLANK}]?[^{SPACE}]+(?:[{SPACE}]*[\r\n])?"
    rf"|[{SPACE}]*[\r\n]|[{SPACE}]+(?![^{SPACE}])|[{SPACE}]",
}
CUTS = {  # (?r) looks from the end; what is left of the cut is never white space
    "gpt2": r"(?r)\S(?=\s)",
    "gpt2_digits": r"(?r)\S(?=\s)",
    "gpt4": r"(?r)\S(?=[^\S\r\n])|[\p{L}\p{N}](?=\s)",
    "llama3": r"(?r)\S(?=[^\S\r\n])|[\p{L}\p{N}](?=\s)",
    "spaces": r"(?r)[^ ](?= )",
    "metaspace": r"(?r)[^ ](?= )",
}


class Splitter:
    r"""A pattern at work: one of PATTERNS (`none`: the text is one word) or any regular expression.

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
        self._words = self._fine.findall if pattern in PATTERNS else self._checked
        self._ascii = re.compile(ASCII[pattern]).findall if pattern in ASCII else self._words
        self._units = re.compile(COARSE[pattern]).findall if pattern in COARSE else self._words
        self._cut = regex.compile(CUTS[pattern]) if pattern in CUTS else None

    def __reduce__(self) -> tuple[type["Splitter"], tuple[str]]:
        return Splitter, (self.pattern,)

    def words(self, text: str) -> list[str]:
        """All of the text in order, cut into words. ValueError if the pattern skips any of it."""
        words: list[str] = self._ascii(text) if text.isascii() else self._words(text)
        return words

    def units(self, text: str) -> list[str]:
        """The text in coarser pieces: the words of each, one after the other, are `words(text)`."""
        units: list[str] = self._units(text)
        return units

    def cut(self, text: str) -> int:
        """The last position where the text can be cut and give the same words, whatever follows.

        0 where none is known: named patterns end a word at white space, "none" and a pattern of
        your own promise nothing.
        """
        found = self._cut.search(text) if self._cut else None
        return found.end() if found else 0

    def _checked(self, text: str) -> list[str]:
        words, end = [], 0
        for m in self._fine.finditer(text):
            if m.start() > end:
                break
            end = m.end()
            if m[0]:
                words.append(m[0])
        if end < len(text):
            raise ValueError(
                f"pattern {self.pattern!r} skips {text[end]!r} at character {end}; "
                r"end it with |\s+|\S so that it covers any text"
            )
        return words
