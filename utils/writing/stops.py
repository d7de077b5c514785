"""Stop strings: text ends before the first of them. Imports no torch."""

from collections.abc import Iterable, Iterator


class Stops:
    """Lets text pass up to the first stop string to be completed, however the pieces are cut.

    Held back is only what may yet become one.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self.stops, self.held, self.met = list(stops), "", False

    def add(self, piece: str) -> str:
        """Take a piece; gives the text that is free by now."""
        self.held += piece
        at = {stop: self.held.index(stop) for stop in self.stops if stop in self.held}
        if at:
            _, start = min((start + len(stop), start) for stop, start in at.items())
            self.held, self.met = self.held[:start], True
            return self.rest()
        most = len(self.held) + 1  # a stop string may be longer than any text
        starts = (
            n for s in self.stops for n in range(1, min(most, len(s))) if self.held.endswith(s[:n])
        )
        free = len(self.held) - max(starts, default=0)
        text, self.held = self.held[:free], self.held[free:]
        return text

    def rest(self) -> str:
        """What is held back, once nothing more comes."""
        text, self.held = self.held, ""
        return text


def up_to(pieces: Iterable[str], stops: Iterable[str]) -> Iterator[str]:
    """The text before the first stop string: "E", "N", "Dx" with the stop "END!" -> "ENDx"."""
    gate = Stops(stops)
    for piece in pieces:
        if text := gate.add(piece):
            yield text
        if gate.met:
            return
    if text := gate.rest():
        yield text


def check_stops(stops: Iterable[str]) -> None:
    """Raise ValueError for an empty stop string, which stands everywhere."""
    if "" in stops:
        raise ValueError("a stop string is empty, and would end every text at once; leave it out")
