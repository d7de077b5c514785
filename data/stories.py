"""A small story grammar of our own: it composes data/tiny.txt, the text every first run learns.

A plot is a template, a row of its table says what this story is about, a cast says who is in it:
the want, the trouble, its cure and the last line come from one row, so they agree. Notation:
`[a|b]` is a choice, `{name}` a slot, ` / ` ends a line of a plot or a field of a row.

    python -m data.stories                # writes data/tiny.txt, always the same bytes

    >>> tell(random.Random(1), "[One day|Soon], {name} had a {thing}.", name="Pip", thing="egg")
    'One day, Pip had an egg.'
"""

import random
import re
from collections.abc import Sequence
from pathlib import Path

from data.plots import PLOTS
from tok.cli import Parser, run
from tok.files import replacing

# Who lives in the village: two friends a line, a he and a she, so that a pronoun has one owner.
# (name, kind, home) twice. Small models tell people apart by what they know of each.
FRIENDS = [
    ("Tom", "fox", "at the edge of the woods", "Mina", "mouse", "under the baker's table"),
    ("Pip", "pig", "on a farm with one cow", "Lily", "girl", "in a house with a red door"),
    ("Otto", "bear", "under a green hill", "Rosa", "rabbit", "in a garden full of beans"),
    ("Finn", "boy", "in a little house by the sea", "Nell", "hedgehog", "under an old tree"),
    ("Max", "badger", "near a quiet pond", "Ivy", "fox", "behind the old barn"),
    ("Hugo", "mouse", "in the mill, behind the door", "Ada", "girl", "in a house full of books"),
    ("Ben", "boy", "at the end of a long road", "Tilly", "bear", "on top of a windy hill"),
    ("Sam", "rabbit", "next to the school", "Daisy", "pig", "in a boat on the river"),
]
FORMS = {"she": ("her", "her"), "he": ("him", "his")}
MOODS = ["little", "small", "young", "cheerful", "kind", "merry", "busy", "clever"]

SHARED = {
    "open": "[{once}, there was a {mood} {kind} named {name}. {He} lived {home}."
    "|{once}, there was a {mood} {kind} named {name}."
    "|{once}, there lived a {mood} {kind} named {name}."
    "|{once}, there was a {mood} {kind} named {name}, who lived {home}."
    "|{once}, a {mood} {kind} named {name} lived {home}."
    "|In {town}, there lived a {mood} {kind} named {name}."
    "|In {town}, there was a {mood} {kind}. {His} name was {name}."
    "|{Name} was a {mood} {kind} who lived {home}."
    "|{Name} the {kind} lived {home}. {He} was {mood} and "
    "[always hungry|liked soup|never late].]",
    "once": "[Once upon a time|Once upon a time|Once upon a time|Long ago]",
    "town": "a [small|quiet|sunny|busy|little] village "
    "[by the sea|in the hills|near the woods|by the river|under the hill]",
    "when": "[One day|One morning|One fine day|One Sunday|One bright morning|One windy day]",
    "sigh": '["Oh dear," said {name}.|"Oh no!" cried {name}.|{Name} sat down and sighed.'
    '|{Name} wanted to cry.|"What can I do now?" said {name}.|{Name} did not know what to do.]',
    "night": "[That night, {name} fell asleep with a smile."
    "|{Name} smiled from ear to ear."
    "|And {name} was very happy.|{Name} was so happy that {he} danced around the table."
    "|{Name} told the story every winter, and each time it grew a little longer.]",
    "pals": "[After that, {name} and {pal} were the best of friends."
    "|{Name} and {pal} laughed until the stars came out.|Then they had tea, with honey for {pal}."
    '|"What a day!" said {pal}, and {name} laughed.|Then {name} and {pal} made a song about it.]',
}
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


def cast(number: int) -> dict[str, str]:
    """Hero `number` and their friend: 0 is Tom, 1 is Mina, 2 is Pip, ... and round again."""
    pair, she = divmod(number % (2 * len(FRIENDS)), 2)
    row = FRIENDS[pair]
    (name, kind, home), (pal, palkind, _) = (row[3:], row[:3]) if she else (row[:3], row[3:])
    he, phe = ("she", "he") if she else ("he", "she")
    him, his = FORMS[he]
    who = {"name": name, "kind": kind, "home": home, "he": he, "him": him, "his": his}
    return who | {"pal": pal, "palkind": palkind, "phe": phe}


def story(rng: random.Random) -> str:
    """One story, 300 to 800 bytes in a few lines, with no blank line and no newline at its end."""
    plot = rng.choice(PLOTS)
    template, fields, rows = plot
    every = [row for _, _, rows in dict.fromkeys(PLOTS) for row in rows.split("\n\n")]
    row = rng.choice(rows.split("\n\n"))
    facts = dict(zip(fields.split(), cut(choose(rng, row)), strict=True))  # chosen once, told twice
    who = cast(every.index(row)) | {"mood": rng.choice(MOODS)}
    return tell(rng, "\n".join(cut(template)), **SHARED, **facts, **who)


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
