"""Five synthetic skills as text, a task a line: each shows one thing that a model can learn to do.

    copy kqzfa=kqzfa                   copying: the same letters again
    after kqmzab m=z                   induction: A B ... A -> B, what followed the letter before
    close ([{}=])                      brackets: close all that are open, the innermost first
    add 48+27=57                       addition: the digits of the sum, the last one first
    find ..472.......=472              passkey: the number that stood among dots

A level is how long a task is: letters to copy or to look among, brackets left open, digits of a
number, dots after the passkey. One task in five is held out, by the hash of its question,
whatever the seed: a text to train on never has it, and `held_out` gives no other.

    python -m data.skills                 # writes data/skills.txt, always the same bytes
    python -m data.skills --bytes 500000 --seed 2 --out more.txt
"""

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

from tok.cli import Parser, run
from tok.files import replacing

OPEN, CLOSE = "([{", ")]}"
HELD_OUT = 5  # one in so many
BEFORE = 10  # dots before a passkey, at most
TRIES = 200  # for each task that is asked for: easy levels have few


@dataclass(frozen=True)
class Task:
    """A question that ends in "=" and its only answer, one of `options` of the right form."""

    question: str
    answer: str
    options: int

    @property
    def line(self) -> str:
        """As it stands in a text: "add 4+9=31"."""
        return self.question + self.answer


def letters(rng: random.Random, n: int) -> str:
    """N letters, each drawn by itself."""
    return "".join(rng.choices(ascii_lowercase, k=n))


def copying(rng: random.Random, n: int) -> Task:
    """N letters, to be written again."""
    text = letters(rng, n)
    return Task(f"copy {text}=", text, len(ascii_lowercase) ** n)


def induction(rng: random.Random, n: int) -> Task:
    """N + 1 different letters and one of them: which one followed it? Never the first's turn."""
    text = "".join(rng.sample(ascii_lowercase, n + 1))
    i = rng.randrange(n)
    return Task(f"after {text} {text[i]}=", text[i + 1], n)


def brackets(rng: random.Random, n: int) -> Task:
    """Brackets of three kinds of which n are open at the end, and up to n pairs closed before."""
    closed = rng.randint(0, n)
    steps = [1] * (n + closed) + [-1] * closed
    while any(sum(steps[: i + 1]) < 0 for i in range(len(steps))):
        rng.shuffle(steps)
    still, text = list[str](), ""
    for step in steps:
        text += rng.choice(OPEN) if step > 0 else CLOSE[OPEN.index(still.pop())]
        still += text[-1] * (step > 0)
    answer = "".join(CLOSE[OPEN.index(bracket)] for bracket in reversed(still))
    return Task(f"close {text}=", answer, len(OPEN) ** n)


def addition(rng: random.Random, n: int) -> Task:
    """Two numbers of n digits each. Backwards, as one adds by hand (Lee et al. 2023)."""
    least, most = 10 ** (n - 1) * (n > 1), 10**n - 1
    a, b = rng.randint(least, most), rng.randint(least, most)
    return Task(f"add {a}+{b}=", str(a + b)[::-1], 2 * (most - least) + 1)


def passkey(rng: random.Random, n: int) -> Task:
    """Three digits, up to BEFORE dots before them and n after (Mohtashami and Jaggi 2023)."""
    key = f"{rng.randrange(1000):03}"
    return Task(f"find {'.' * rng.randint(0, BEFORE)}{key}{'.' * n}=", key, 1000)


@dataclass(frozen=True)
class Skill:
    """What draws a task of a level, its first word, the levels to score, what a level counts."""

    make: Callable[[random.Random, int], Task]
    word: str
    levels: tuple[int, ...]
    unit: str


SKILLS = {  # the last level is the highest that a text to train on has
    "copying": Skill(copying, "copy", (4, 8, 16), "letters"),
    "induction": Skill(induction, "after", (4, 8, 12), "letters"),
    "brackets": Skill(brackets, "close", (2, 4, 6), "open"),
    "addition": Skill(addition, "add", (1, 2, 3), "digits"),
    "passkey": Skill(passkey, "find", (16, 32, 64), "dots after"),
}


def is_held_out(question: str) -> bool:
    """Whether a question is kept from training. a+b and b+a are one question."""
    verb, _, rest = question.partition(" ")
    if verb == "add":
        rest = "+".join(sorted(rest[:-1].split("+")))
    return zlib.crc32(f"{verb} {rest}".encode()) % HELD_OUT == 0


def held_out(skill: str, level: int, n: int, seed: int = 0) -> list[Task]:
    """N different tasks that no training text has; fewer where there are no more (1 digit)."""
    rng, found = random.Random(f"{skill} {level} {seed}"), dict[str, Task]()
    for _ in range(n * TRIES):
        task = SKILLS[skill].make(rng, level)
        if is_held_out(task.question):
            found.setdefault(task.question, task)
        if len(found) == n:
            break
    return list(found.values())


def to_learn(rng: random.Random) -> Iterator[Task]:
    """Tasks to train on without end: all skills alike, all levels up to a skill's highest."""
    while True:
        skill = rng.choice(list(SKILLS.values()))
        task = skill.make(rng, rng.randint(1, skill.levels[-1]))
        if not is_held_out(task.question):
            yield task


def examples(skill: str, level: int, n: int, seed: int = 0) -> list[Task]:
    """N tasks that are not held out, to be shown before a question."""
    rng, found = random.Random(f"shown {skill} {level} {seed}"), list[Task]()
    while len(found) < n:
        task = SKILLS[skill].make(rng, level)
        found += [task] * (not is_held_out(task.question))
    return found


def compose(limit: int = 600_000, seed: int = 1) -> str:
    """As many tasks as fit in `limit` bytes, a line each. Pure in the seed."""
    lines, size = list[str](), 0
    for task in to_learn(random.Random(seed)):
        size += len(task.line) + 1  # ASCII: a character is a byte
        if size > limit:
            break
        lines.append(task.line + "\n")
    return "".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Write a text of tasks, whole or not at all."""
    p = Parser(prog="python -m data.skills", description=__doc__)
    p.add_argument("--bytes", type=int, default=600_000, help="its size (default 600000)")
    p.add_argument("--seed", type=int, default=1, help="which tasks are drawn (default 1)")
    p.add_argument("--out", default=str(Path(__file__).with_name("skills.txt")), help="its file")
    a = p.parse_args(argv)
    text = compose(a.bytes, a.seed)
    if not text:
        raise ValueError(f"bytes={a.bytes} is too short for a task; give 600000, say")
    with replacing(a.out) as new:
        Path(new).write_bytes(text.encode("ascii"))
    print(f"{a.out}: {len(text):,} bytes, {text.count(chr(10)):,} tasks")


if __name__ == "__main__":
    run(main)
