"""Special tokens: text that is one id by decree, such as <|endoftext|>. Never part of a merge."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator


def check_specials(special_tokens: Iterable[str]) -> list[str]:
    """Special tokens as a list; ValueError for an empty one, a duplicate or a lone string."""
    if isinstance(special_tokens, str):
        raise ValueError(
            f"special_tokens={special_tokens!r} is one string; give [{special_tokens!r}]"
        )
    specials = list(special_tokens)
    for s in specials:
        if not isinstance(s, str) or not s:
            raise ValueError(f"special token {s!r} is not text; give strings like '<|end|>'")
        if specials.count(s) > 1:
            raise ValueError(
                f"special token {s!r} is given {specials.count(s)} times; give it once"
            )
    return specials


def allowed(choice: str | Collection[str], specials: Collection[str]) -> Collection[str]:
    """The special tokens meant by "none", "all" or a set of them; ValueError for others."""
    if isinstance(choice, str):
        if choice not in ("none", "all"):
            raise ValueError(f"allowed_special={choice!r}; give 'none', 'all' or a set of tokens")
        return specials if choice == "all" else ()
    if unknown := sorted(set(choice) - set(specials)):
        raise ValueError(f"allowed_special has {unknown[0]!r}; the tokenizer has {list(specials)}")
    return choice


def finder(specials: Collection[str]) -> "re.Pattern[str]":
    """An expression that finds special tokens; where one begins another, the longer."""
    longest_first = sorted(specials, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")


def special_parts(text: str, specials: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Cut the text at special tokens: "a<|b|>c" -> a no, <|b|> yes, c no."""
    if not specials:
        yield text, False
        return
    for i, part in enumerate(finder(specials).split(text)):
        if part:
            yield part, i % 2 == 1


def safe_texts(
    chunks: Iterable[str], specials: Collection[str], cut: Callable[[str], int], size: int
) -> Iterator[str]:
    """The chunks as one text, in pieces of about `size` characters that can be encoded one by one.

    No piece ends inside a special token, and each ends where `cut` says that a text may be cut.
    """
    waiting, length, enough = [""], 0, size
    for chunk in slices(chunks, size):
        waiting.append(chunk)
        length += len(chunk)
        if length >= enough:
            text = "".join(waiting)
            end = safe_end(text, specials, cut)
            yield text[:end]
            waiting, length = [text[end:]], len(text) - end
            enough = max(size, 2 * length)  # twice as much: a long word is not looked at too often
    yield "".join(waiting)


def slices(chunks: Iterable[str], size: int) -> Iterator[str]:
    """The same text, no chunk longer than `size`. ValueError for half a surrogate pair."""
    at = 0
    for chunk in chunks:
        for i in range(0, len(chunk), size):
            part = chunk[i : i + size]
            check_characters(part, at)
            at += len(part)
            yield part


def check_characters(text: str, at: int) -> None:
    """ValueError for half a surrogate pair; `at` is the place of the text in the whole."""
    try:
        text.isascii() or text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise ValueError(
            f"character {at + e.start} is {text[e.start]!r}, half of a surrogate pair; "
            "clean the text with text.encode('utf-8', 'replace').decode()"
        ) from None


def safe_end(text: str, specials: Collection[str], cut: Callable[[str], int]) -> int:
    """How much of a text is certain, more of it to come."""
    end = 0
    sure = max(0, len(text) - max(map(len, specials), default=1) + 1)  # a token may begin after it
    for m in finder(specials).finditer(text) if specials else ():
        if m.start() >= sure:
            break
        end = m.end()
    return end + cut(text[end:sure])
