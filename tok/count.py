"""How often each word occurs in texts."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import partial

from tok.special import safe_texts, special_parts
from tok.split import Splitter
from tok.workers import in_order

PIECE = 1 << 20  # characters


def count_words(
    texts: Iterable[str | Iterable[str]],
    split: Splitter,
    specials: Collection[str] = (),
    workers: int = 1,
) -> Counter[str]:
    """Count words; special tokens cut a text and are not counted, nor does a word cross texts."""

    def pieces() -> Iterator[str]:
        for text in texts:
            chunks = [text] if isinstance(text, str) else text
            yield from safe_texts(chunks, specials, split.cut, PIECE)

    words: Counter[str] = Counter()
    for found in in_order(partial(count_piece, split, specials), pieces(), workers):
        for word, n in found.items():
            words[word] += n
    return words


def count_piece(split: Splitter, specials: Collection[str], text: str) -> Counter[str]:
    """Count the words of one piece. ASCII is split at once, other text in two steps."""
    words: Counter[str] = Counter()
    units: Counter[str] = Counter()
    for part, special in special_parts(text, specials):
        if special:
            continue
        if part.isascii():
            words.update(split.words(part))
        else:
            units.update(split.units(part))
    for unit, n in units.items():
        for word in split.words(unit):
            words[word] += n
    return words
