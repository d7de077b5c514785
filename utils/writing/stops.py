"""Stop strings: text ends before the first of them. Imports no torch."""

from collections.abc import Iterable, Iterator


def up_to(pieces: Iterable[str], stops: Iterable[str]) -> Iterator[str]:
    """The text before the first stop string to be completed, however the pieces are cut.

    Held back is only what may yet become one: "E", "N", "Dx" with the stop "END!" -> "ENDx".
    """
    held, stops = "", list(stops)
    for piece in pieces:
        held += piece
        found = [(held.index(stop) + len(stop), held.index(stop)) for stop in stops if stop in held]
        if found:
            held = held[: min(found)[1]]
            break
        starts = (n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n]))
        free = len(held) - max(starts, default=0)
        if free:
            yield held[:free]
        held = held[free:]
    if held:
        yield held


def check_stops(stops: Iterable[str]) -> None:
    """Raise ValueError for an empty stop string, which stands everywhere."""
    if "" in stops:
        raise ValueError("a stop string is empty, and would end every text at once; leave it out")
