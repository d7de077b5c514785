"""One text or two for a model of BERT's kind: [CLS] a [SEP], or [CLS] a [SEP] b [SEP]."""

from collections.abc import Sequence


def fit(a: int, b: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts stay in `room`: the longer one is cut first.

    If both must be cut, each gets half; an odd token goes to the longer, or to b of equals.
    fit(3, 9, 8) -> (3, 5); fit(8, 9, 7) -> (3, 4).
    """
    if a + b <= room:
        return a, b
    half = room // 2
    short = min(a, b, half)
    return (short, room - short) if a <= b else (room - short, short)


def paired(
    a: Sequence[int], b: Sequence[int] | None, start: int, end: int, length: int | None
) -> tuple[list[int], list[int]]:
    """Ids and token types of one text (b is None) or two, of at most `length` tokens in all.

    The first text with the signs around it is of type 0, the second of type 1. ValueError for a
    length in which a text would lose all its tokens.
    """
    signs = 2 if b is None else 3
    rest: Sequence[int] = b or ()
    if length is not None:
        least = signs + bool(a) + bool(rest)
        if length < least:
            raise ValueError(
                f"length={length} leaves no token of a text beside [CLS] and [SEP]; "
                f"give at least {least}"
            )
        n_a, n_b = fit(len(a), len(rest), length - signs)
        a, rest = a[:n_a], rest[:n_b]
    ids = [start, *a, end]
    types = [0] * len(ids)
    if b is not None:
        ids += [*rest, end]
        types += [1] * (len(rest) + 1)
    return ids, types
