"""A small story grammar of our own: it composes data/tiny.txt, the text every first run learns.

A plot is a template; who, what and where are drawn anew for every story, and come back in it. So
few passages stand in two stories, and a model learns to look back. Notation: data/plots.py.

    python -m data.stories                # writes data/tiny.txt, always the same bytes

    >>> tell(random.Random(1), "[One day|Soon], {name} had a {thing}.", name="Pip", thing="egg")
    'One day, Pip had an egg.'
"""

import random
import re
from collections.abc import Sequence
from pathlib import Path

from data import plots
from data.plots import PLOTS, SHARED
from tok.cli import Parser, run
from tok.files import replacing

FORMS = {"she": ("her", "her"), "he": ("him", "his")}
KINDS = {k: v.split(", ") if "," in v else v.split() for k, v in plots.KINDS.items()}
DRAWN = ("mood", "kin", "animal", "beast", "thing", "look", "food", "place")
CHOICE = re.compile(r"\[([^\[\]]*)\]")  # an innermost [a|b]


def choose(rng: random.Random, text: str) -> str:
    """Choose in every [a|b], the innermost first, until no bracket is left."""
    while "[" in text:
        text = CHOICE.sub(lambda m: rng.choice(m[1].split("|")), text)
    return text


def tell(rng: random.Random, text: str, **facts: str) -> str:
    """Choose in every [a|b], fill every {slot} ({Slot}: with a capital), until none is left."""

    def fill(slot: re.Match[str]) -> str:
        fact = choose(rng, facts[slot[1].lower()])
        return fact[:1].upper() + fact[1:] if slot[1][0].isupper() else fact

    text = choose(rng, text)
    while "{" in text:
        text = re.sub(r"\{(\w+)\}", fill, text)
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def cut(text: str) -> list[str]:
    """Cut at slashes, any white space to one space: "a / b\\n c" -> ["a", "b c"]."""
    return " ".join(text.split()).split(" / ")


def cast(rng: random.Random) -> dict[str, str]:
    """Draw who and what a story is about; of places, two."""
    he = rng.choice(list(FORMS))
    him, his = FORMS[he]
    facts = {"he": he, "him": him, "his": his}
    facts |= {"name": rng.choice(KINDS[he]), "kind": rng.choice(KINDS[f"{he}-kind"])}
    facts |= {kind: rng.choice(KINDS[kind]) for kind in DRAWN}
    others = [place for place in KINDS["place"] if place != facts["place"]]
    return facts | {"place2": rng.choice(others)}


def story(rng: random.Random) -> str:
    """One story, 300 to 800 bytes in a few lines, with no blank line and no newline at its end."""
    return tell(rng, "\n".join(cut(rng.choice(PLOTS))), **SHARED, **cast(rng))


def compose(limit: int = 200_000, seed: int = 1) -> str:
    """As many stories, one blank line between them, as fit in `limit` bytes. Pure in the seed."""
    rng = random.Random(seed)
    stories: dict[str, None] = {}  # a set that keeps its order
    size = 0
    while True:
        new = story(rng)
        size += 0 if new in stories else len(new) + 2  # ASCII: a character is a byte
        if size - 1 > limit:  # the last story ends with one newline, not two
            return "\n\n".join(stories) + "\n" * bool(stories)
        stories[new] = None


def main(argv: Sequence[str] | None = None) -> None:
    """Write tiny.txt beside this file, whole or not at all."""
    Parser(prog="python -m data.stories", description=__doc__).parse_args(argv)
    path = Path(__file__).with_name("tiny.txt")
    with replacing(path) as new:
        Path(new).write_bytes(compose().encode("ascii"))


if __name__ == "__main__":
    run(main)
