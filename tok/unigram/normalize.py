"""What imported tokenizers do to a text before they cut it, in steps. Ours do nothing.

A step is a list that JSON can hold: a name and its arguments. The blank stands for itself here;
SentencePiece writes it "▁" in its pieces and, in a text, takes one for the other.
"""

import re
import unicodedata
from base64 import b64decode
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import regex

from tok.unigram.charsmap import CharsMap

Step = list[Any]
MARK = "\u2581"  # ▁, as others write the blank


class Charsmap:
    """SentencePiece's rules, in base64."""

    def __init__(self, data: str, kept: Sequence[str]):
        self.rules = CharsMap(b64decode(data), kept)

    def __call__(self, text: str) -> str:
        """The text with the rules applied."""
        return "".join(self.rules.parts(text))


def blanks(text: str, prefix: bool, collapse: bool) -> str:
    """SentencePiece's treatment of blanks: `collapse` runs of them, and put one in front."""
    if collapse:
        text = re.sub(" +", " ", text.lstrip(" "))
    text = (" " if prefix else "") + text.replace(MARK, " ")
    return text.rstrip(" ") if collapse else text


def metaspace(text: str, prefix: bool) -> str:
    """Hugging Face's: one blank in front, unless there is one, or no text."""
    text = text.replace(MARK, " ")
    return " " + text if prefix and text and not text.startswith(" ") else text


def white_split(text: str) -> str:
    """Words between any white space, one blank before each."""
    words = [word.removeprefix(MARK) for word in regex.split(r"\s+", text) if word]
    return "".join(" " + word.replace(MARK, " ") for word in words)


def strip(text: str, left: bool, right: bool) -> str:
    """Without white space at the ends."""
    text = regex.sub(r"^\s+", "", text) if left else text
    return regex.sub(r"\s+$", "", text) if right else text


STEPS: dict[str, Callable[..., str]] = {
    "blanks": blanks,
    "metaspace": metaspace,
    "white_split": white_split,
    "strip": strip,
    "unicode": lambda text, form: unicodedata.normalize(form, text),
    "lowercase": str.lower,
    "replace": str.replace,
    "prepend": lambda text, start: start + text,
    "runs": lambda text, many, one: re.sub(f"(?:{re.escape(many)})+", one, text),
}


class Normalizer:
    """Steps at work, one after the other; an empty text stays empty. ValueError for an odd step."""

    def __init__(self, steps: Sequence[Step]):
        self.steps: list[Callable[[str], str]] = []
        for name, *args in steps:
            if name == "charsmap":
                self.steps.append(Charsmap(*args))
            elif name in STEPS:
                self.steps.append(partial(apply, STEPS[name], args))
            else:
                raise ValueError(f"normalizer has {name!r}; known are charsmap, {', '.join(STEPS)}")

    def __call__(self, text: str) -> str:
        """The text as the tokenizer cuts it."""
        for step in self.steps if text else ():
            text = step(text)
        return text


def apply(step: Callable[..., str], args: Sequence[Any], text: str) -> str:
    """A step's text."""
    return step(text, *args)
