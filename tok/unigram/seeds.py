"""Where training begins: the substrings of words that come more than once.

A suffix array would list them; counting them length by length gives the same. A string can come
twice only if it without its last character does, so each length looks only at the positions that
the length before has left, and memory holds what repeats.
"""

from collections import defaultdict
from collections.abc import Iterable

LONGEST = 16  # characters, as SentencePiece has it


def substrings(words: Iterable[tuple[str, int]], longest: int = LONGEST) -> dict[str, int]:
    """Substrings of 2 to `longest` characters that come at least twice, with how often they do.

    Without those that always have the same character after them: the longer one says it all.
    [("banana", 1)] -> {"na": 2, "ana": 2}; "an" comes twice, too, but only in "ana".
    """
    found: dict[str, int] = {}
    alive: list[tuple[str, int, Iterable[int]]]
    alive = [(word, n, range(len(word) - 1)) for word, n in words]
    for length in range(2, longest + 1):
        count: dict[str, int] = defaultdict(int)
        for word, n, starts in alive:
            for i in starts:
                count[word[i : i + length]] += n
        repeated = {s: n for s, n in count.items() if n > 1}
        for s, n in repeated.items():
            if found.get(s[:-1]) == n:
                del found[s[:-1]]
        found |= repeated
        alive = longer(alive, length, repeated)
    return found


def longer(
    alive: Iterable[tuple[str, int, Iterable[int]]], length: int, repeated: dict[str, int]
) -> list[tuple[str, int, Iterable[int]]]:
    """The positions where a repeated string of this length has a character after it."""
    kept: list[tuple[str, int, Iterable[int]]] = []
    for word, n, starts in alive:
        last = len(word) - length
        left = [i for i in starts if i < last and word[i : i + length] in repeated]
        if left:
            kept.append((word, n, left))
    return kept
