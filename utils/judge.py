"""Judge stories like those of data/tiny.txt by stated rules: what a model wrote, or a file.

    python -m utils.judge --run tiny              # 30 stories of 30 seeds: how many keep all rules
    python -m utils.judge --run tiny --temperature 1 --top_p 0.9
    python -m utils.judge --file stories.txt      # stories with a blank line between two of them

The rules: "end": the story ends by itself, and so does each of its sentences; "quotes" close;
"words" are all known; "grammar": so are any five in a row of a sentence, where all names are
alike, all animals, things, places and so on; "names": the hero is introduced by name, keeps it,
and nobody else has one; "pronouns" are the hero's; "things": there is one thing or food, one
animal, one beast and one relative at most, and none is "the kite" that was not spoken of before;
"repeats": no sentence and no word comes twice.
"""

import re
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence

from data.stories import FORMS, KINDS, compose
from tok.cli import Parser, run
from tok.files import read_text
from utils.runs import latest_run, run_dir
from utils.writing.defaults import SAMPLING

KNOWN = 1_000_000  # bytes of stories by data/stories.py that tell what is known
RUN = 5  # words or marks in a row: with 3, "she found a red box broke" would pass
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?", re.I)
PIECE = re.compile(r"[a-z]+(?:'[a-z]+)?|[^a-z\s]|\n", re.I)
NAMES = {name: he for he in FORMS for name in KINDS[he]}
KIND = {word: kind for kind, words in KINDS.items() for word in words}
THINGS = [*KINDS["thing"], *KINDS["food"]]
ACTORS = ("animal", "beast", "kin")
LISTED = re.compile(r"\b(" + "|".join(sorted(KIND, key=len, reverse=True)) + r")\b")


def runs(story: str) -> Iterator[tuple[str, ...]]:
    """RUN words or marks from each of a sentence on, with their kind where KINDS lists them.

    "Tom had a pear." -> (^ NAME had a FOOD), (NAME had a FOOD .), (had a FOOD . $), ...
    """
    text = LISTED.sub(lambda m: "NAME" if m[0] in NAMES else KIND[m[0]].upper(), story)
    for sentence in re.split(r'(?<=[.!?])\s|(?<=[.!?]")\s', text.replace(" an ", " a ")):
        pieces = ["^", *PIECE.findall(sentence), *["$"] * (RUN - 1)]
        yield from zip(*(pieces[i:] for i in range(RUN)), strict=False)


class Judge:
    """Knows the words and runs of a text of stories."""

    def __init__(self, text: str):
        self.words = set(WORD.findall(text.lower()))
        self.runs = {run for story in text.split("\n\n") for run in runs(story)}

    def broken(self, story: str, ended: bool = True) -> dict[str, bool]:
        """Whether a story breaks each rule. `ended`: whether it ended by itself."""
        lines = story.strip().split("\n")
        return {
            "end": not ended or not all(re.search(r'[.!?]"?$', line) for line in lines),
            "quotes": not all(quotes_close(line) for line in lines),
            "words": not self.words.issuperset(WORD.findall(story.lower())),
            "grammar": not self.runs.issuperset(runs(story.strip())),
            "names": not names_hold(story),
            "pronouns": not pronouns_hold(story),
            "things": not things_hold(story),
            "repeats": repeats(story),
        }

    def faults(self, story: str, ended: bool = True) -> list[str]:
        """The rules that a story breaks, none for a good one."""
        return [rule for rule, fault in self.broken(story, ended).items() if fault]


def quotes_close(line: str) -> bool:
    """Whether quotes open before a word and close after a mark, in turn."""
    parts = line.split('"')
    inside = parts[1::2]
    return len(parts) % 2 == 1 and all(re.search(r"^\w.*[.,!?]$", part) for part in inside)


def people(story: str) -> list[str]:
    """Who is named, in order of appearance."""
    return list(dict.fromkeys(word for word in re.findall(r"\w+", story) if word in NAMES))


def names_hold(story: str) -> bool:
    """Whether one hero is introduced in the first line, and comes back twice or more."""
    if len(people(story)) != 1:
        return False
    hero = people(story)[0]
    return f" named {hero}" in story.split("\n")[0] and len(re.findall(hero, story)) > 2


def pronouns_hold(story: str) -> bool:
    """Whether he, him, his or she, her are the hero's only."""
    hero = NAMES.get(people(story)[0], "") if people(story) else ""
    words = set(WORD.findall(story.lower()))
    return all(not words & {he, *forms} for he, forms in FORMS.items() if he != hero)


def things_hold(story: str) -> bool:
    """Whether nothing changes on the way: no second thing, animal, beast or relative comes up.

    And the thing does not begin as "the" or "that" kite.
    """
    found = re.findall(rf"\b(the |that )?({'|'.join(THINGS)})\b", story)
    if found and found[0][0]:
        return False
    casts = [{word for _, word in found}]
    casts += [set(re.findall(rf"\b({'|'.join(KINDS[k])})\b", story)) for k in ACTORS]
    return all(len(cast) <= 1 for cast in casts)


def repeats(story: str) -> bool:
    """Whether a sentence of four words or more comes twice, or a word twice in a row."""
    sentences = Counter(re.findall(r"\w[^.!?]*", story))
    twice = any(n > 1 and len(s.split()) > 3 for s, n in sentences.items())
    return twice or bool(re.search(r"\b(\w+) \1\b", story, re.I))


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the flags."""
    p = Parser(prog="python -m utils.judge", description=__doc__)
    p.add_argument("--run", help="a name under runs/, or a path (default: the newest)")
    p.add_argument("--file", help="judge these stories instead")
    p.add_argument("--num", type=int, default=30, help="stories to write (default 30)")
    p.add_argument("--prompt", default="Once upon a time", help="how they all begin")
    p.add_argument("--steps", type=int, default=400, help="most tokens a story (default 400)")
    for name, value in SAMPLING.items():
        kind = int if name == "top_k" else float
        p.add_argument(f"--{name}", type=kind, default=value, help=f"default {value}")
    p.add_argument("--seed", type=int, default=0, help="the first seed (default 0)")
    return p.parse_args(argv)


def written(a: Namespace) -> list[tuple[str, bool]]:
    """What a run writes with a.num seeds: each story, and whether it ended by itself."""
    from data.store import end_id  # here, not above: flags are checked before torch is imported
    from utils.training.models import load_model
    from utils.writing.text import write_batch

    if min(a.num, a.steps) < 1:
        raise ValueError(f"num={a.num} and steps={a.steps} must be at least 1")
    model, tokenizer, checkpoint = load_model(run_dir(a.run) if a.run else latest_run())
    end = end_id(checkpoint["data"], tokenizer)
    how = {name: vars(a)[name] for name in SAMPLING} | {"top_k": a.top_k or None}  # 0 = all
    texts = write_batch(
        model.eval(), tokenizer, [a.prompt] * a.num, a.steps, end=end, seed=a.seed, **how
    )
    return [(a.prompt + text.text, len(text.ids) < a.steps) for text in texts]


def main(argv: Sequence[str] | None = None) -> None:
    """Print how many stories keep all rules, how often each rule is broken, and where."""
    a = parse(argv)
    judge, broken, good = Judge(compose(KNOWN)), Counter[str](), 0
    stories = [(s, True) for s in read_text(a.file).split("\n\n")] if a.file else written(a)
    if not any(story.strip() for story, _ in stories):
        raise ValueError(f"{a.file} is empty; give stories with a blank line between two of them")
    for i, (story, ended) in enumerate(stories):
        faults = judge.faults(story, ended)
        good += not faults
        broken.update(faults)
        if faults:
            print(f"--- {i + 1}: {', '.join(faults)}\n{story.strip()}\n")
    rules = ", ".join(f"{rule} {n}" for rule, n in broken.most_common())
    print(f"{good} of {len(stories)} stories keep all rules" + (f"; broken: {rules}" * bool(rules)))


if __name__ == "__main__":
    run(main)
