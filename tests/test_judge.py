"""The judge of stories: true ones pass, and each way to spoil one is seen."""

import random
import re

import pytest

import sample
from data.stories import FORMS, KINDS, compose
from utils import judge as module
from utils.config import read_yaml, settings_from
from utils.device import pick_device
from utils.distributed import start_processes
from utils.judge import KNOWN, NAMES, THINGS, Judge, runs
from utils.session import Session
from utils.writing.defaults import SAMPLING

JUDGE = Judge(compose(KNOWN))
HELD_OUT = compose(seed=2).strip().split("\n\n")
SOME = HELD_OUT[::8]
ONE = (
    "Once upon a time, there was a shy fox named Tom. One day, Tom found a red kite by the pond. "
    '"Whose kite is this?" said Tom.\nSoon he met a hen. "Is this your kite?" asked Tom.\n'
    "So Tom gave back the kite. And Tom was very happy."
)


def last(story, word, new):
    """The story with the last of these words replaced."""
    head, found, tail = story.rpartition(word)
    assert found
    return head + new + tail


def hero(story):
    return next(word for word in re.findall(r"\w+", story) if word in NAMES)


def another_name(story):
    name = next(n for n in NAMES if n not in story and NAMES[n] == NAMES[hero(story)])
    return last(story, hero(story), name)


def another_pronoun(story):
    he = NAMES[hero(story)]
    she = "she" if he == "he" else "he"
    swap = dict(zip((he, *FORMS[he]), (she, *FORMS[she]), strict=True))
    words = "|".join(swap)
    spoiled = re.sub(rf"\b({words})\b", lambda m: swap[m[0]], story)
    return spoiled if spoiled != story else story + f" And {she} was very happy."


def another(story, words):
    old = list(re.finditer(rf"\b({'|'.join(words)})\b", story))[-1]
    new = next(word for word in words if word not in story)
    return story[: old.start()] + new + story[old.end() :]


def twice(story):
    sentence = max(re.findall(r"[^.!?]+[.!?]", story.split("\n")[0]), key=len)
    return f"{story}{sentence if sentence[0] == ' ' else ' ' + sentence}"


def shuffled(story):
    words = story.split(" ")
    random.Random(len(story)).shuffle(words)
    return " ".join(words)


SPOILED = {
    "end": lambda s: s[: s.rindex(" ")],
    "quotes": lambda s: s.replace('"', "", 1) if '"' in s else s + ' "',
    "words": lambda s: last(s, hero(s), "blunt"),
    "grammar": shuffled,
    "names": another_name,
    "pronouns": another_pronoun,
    "repeats": twice,
}


def test_a_story_by_hand():
    assert JUDGE.faults(ONE) == []
    assert JUDGE.faults(ONE, ended=False) == ["end"]
    assert list(runs("Tom had a pear."))[:3] == [
        ("^", "NAME", "had", "a", "FOOD"),
        ("NAME", "had", "a", "FOOD", "."),
        ("had", "a", "FOOD", ".", "$"),
    ]
    assert JUDGE.faults(ONE.replace("by the pond", "broke")) == ["grammar"]
    for new in ("ball", "bun"):
        assert "things" in JUDGE.faults(ONE.replace("back the kite", f"back the {new}"))
    assert JUDGE.faults(ONE.replace("met a hen", "met a hen and an owl")) == ["grammar", "things"]
    assert JUDGE.faults(ONE.replace("found a red kite", "found the kite")) == ["grammar", "things"]
    assert JUDGE.faults(ONE.replace("Tom was very", "Ben was very")) == ["names"]
    assert JUDGE.faults(ONE.replace("he met", "she met")) == ["pronouns"]
    assert JUDGE.faults("") != []


def test_stories_that_it_never_saw_pass():
    """Of 100 at least 99: the text has room for a turn of phrase that it does not use."""
    assert not set(HELD_OUT) & set(compose(KNOWN).split("\n\n"))
    faults = [JUDGE.faults(story) for story in HELD_OUT]
    assert sum(map(bool, faults)) <= len(HELD_OUT) / 100


@pytest.mark.parametrize("rule", SPOILED)
def test_spoiled_stories_fail(rule):
    """Each of some 50, by the rule that is meant, whatever else it breaks."""
    for story in SOME:
        assert rule in JUDGE.faults(SPOILED[rule](story)), story


def test_a_thing_or_animal_that_changes_is_seen():
    for words in (THINGS, KINDS["animal"]):
        stories = [s for s in SOME if any(re.search(rf"\b{word}\b", s) for word in words)]
        assert len(stories) > 20
        for story in stories:
            assert "things" in JUDGE.faults(another(story, words)), story


def test_one_place_for_the_sampling_defaults(toy_run, monkeypatch):
    """sample.py, the judge and a run's own texts draw alike."""
    a, b = sample.parse([]), module.parse([])
    got = {"temperature": a.temp[0], "top_k": a.top_k[0] or None, "top_p": a.top_p}
    assert {**got, "min_p": a.min_p} == {name: vars(b)[name] for name in SAMPLING} == SAMPLING
    asked = {}

    def noted(*_, **how):
        asked.update(how)
        return ""

    monkeypatch.setattr("utils.tasks.next_token.write_text", noted)
    monkeypatch.chdir(toy_run.parent.parent)
    settings = settings_from(read_yaml(toy_run / "config.yaml"))
    with start_processes(pick_device("cpu")) as dist:
        session = Session(settings, pick_device("cpu"), dist)
        session.task.example(session.state.model, 5, seed=1)
    assert {name: asked[name] for name in SAMPLING} == SAMPLING


def test_the_command_judges_files_and_runs(tmp_path, toy_run, capsys):
    file = tmp_path / "stories.txt"
    file.write_text("\n\n".join([*HELD_OUT[:3], HELD_OUT[3].rpartition(" ")[0]]), encoding="utf-8")
    module.main(["--file", str(file)])
    out = capsys.readouterr().out
    assert out.startswith("--- 4: end")
    assert "3 of 4 stories keep all rules; broken: end 1" in out
    module.main(["--run", str(toy_run), "--num", "2", "--steps", "20"])
    assert "0 of 2 stories keep all rules" in capsys.readouterr().out
    assert set(KINDS) >= {"he", "she", "thing", "food"}
