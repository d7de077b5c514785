"""Long texts -> pieces that can be encoded one by one, in bounded memory."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from tok.special import finder

T = TypeVar("T")
Batch = list[str | None]  # pieces; None ends a document
OVERHEAD = 64  # bytes of memory that a piece costs besides its characters


def check_texts(texts: Iterable[T]) -> Iterable[T]:
    """The texts; ValueError for a single string, which would be taken letter by letter."""
    if isinstance(texts, str):
        raise ValueError(f"texts={texts[:20]!r} is one string; give a list of them: [text]")
    return texts


def batches(
    documents: Iterable[str | Iterable[str]],
    specials: Collection[str],
    cut: Callable[[str], int],
    size: int,
) -> Iterator[Batch]:
    """Documents, strings or iterables of chunks, as lists of about `size` characters.

    So many short documents are one job, and a long one is many. Each document is read to its end
    before the next. ["ab", ""] -> ["ab", None, "", None].
    """
    batch: Batch = []
    length = 0
    for document in documents:
        chunks = [document] if isinstance(document, str) else document
        for piece in safe_pieces(chunks, specials, cut, size):
            batch.append(piece)
            length += len(piece) + OVERHEAD
            if length >= size:
                yield batch
                batch, length = [], 0
        batch.append(None)
    if batch:
        yield batch


def safe_pieces(
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
    start = 0
    for chunk in chunks:
        for i in range(0, len(chunk), size):
            part = chunk[i : i + size]
            check_characters(part, start)
            start += len(part)
            yield part


def check_characters(text: str, start: int) -> None:
    """ValueError for half a surrogate pair; `start` is the position of text in the whole."""
    try:
        text.isascii() or text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise ValueError(
            f"character {start + e.start} is {text[e.start]!r}, half of a surrogate pair; "
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
