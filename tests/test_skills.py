"""data/skills.py: every answer by a second solver, and what is held out is never learnt."""

import re

import pytest

from data import skills
from data.skills import SKILLS, compose, examples, held_out, is_held_out

TEXT = compose(100_000)


def solve(question):
    """The answer, by other ways than the one that made the task."""
    word, _, rest = question[:-1].partition(" ")
    if word == "copy":
        return "".join(iter(rest))
    if word == "after":
        text, letter = rest.split(" ")
        return re.search(f"{letter}(.)", text)[1]
    if word == "add":
        return str(sum(map(int, rest.split("+"))))[::-1]
    if word == "find":
        return re.search(r"\d+", rest)[0]
    while (shorter := re.sub(r"\(\)|\[\]|\{\}", "", rest)) != rest:
        rest = shorter
    return rest[::-1].translate(str.maketrans("([{", ")]}"))


def test_answers_by_a_second_solver():
    lines = TEXT.splitlines()
    assert len(lines) > 3000
    for line in lines:
        question, _, answer = line.partition("=")
        assert solve(question + "=") == answer, line
    words = [line.split(" ")[0] for line in lines]
    for skill in SKILLS.values():  # all alike
        assert 0.17 < words.count(skill.word) / len(words) < 0.23


def test_tasks_by_hand():
    """The lines of the module's docstring."""
    known = "copy kqzfa=kqzfa;after kqmzab m=z;close ([{}=]);add 48+27=57;find ..472...=472"
    for line in known.split(";"):
        question, _, answer = line.partition("=")
        assert solve(question + "=") == answer


@pytest.mark.parametrize("skill", SKILLS)
def test_levels_and_options(skill):
    for level in SKILLS[skill].levels:
        for task in held_out(skill, level, 20):
            body = task.question.partition(" ")[2][:-1]
            sizes = {
                "copying": len(body),
                "induction": len(body.split(" ")[0]) - 1,
                "brackets": len(task.answer),
                "addition": len(body.split("+")[0]),
                "passkey": len(body) - len(body.rstrip(".")),
            }
            assert sizes[skill] == level
            options = {"copying": 26**level, "induction": level, "brackets": 3**level}
            options |= {"addition": {1: 19, 2: 179, 3: 1799}.get(level), "passkey": 1000}
            assert task.options == options[skill]


def test_what_is_held_out_is_in_no_training_text():
    """Whatever the seeds; a+b is held out with b+a."""
    learnt = {line.partition("=")[0] + "=" for line in TEXT.splitlines()}
    learnt |= {line.partition("=")[0] + "=" for line in compose(100_000, seed=7).splitlines()}
    asked = {
        task.question
        for name, skill in SKILLS.items()
        for level in skill.levels
        for seed in (0, 1)
        for task in held_out(name, level, 100, seed)
    }
    assert len(asked) > 1500
    assert not asked & learnt
    swapped = {re.sub(r"add (\d+)\+(\d+)=", r"add \2+\1=", question) for question in asked}
    assert not swapped & learnt
    assert is_held_out("add 3+14=") == is_held_out("add 14+3=")
    share = sum(map(is_held_out, (f"copy {i}=" for i in range(2000)))) / 2000
    assert 0.17 < share < 0.23
    shown = examples("addition", 1, 30)
    assert len(shown) == 30
    assert not any(is_held_out(task.question) for task in shown)


def test_few_easy_tasks_are_all_given():
    """Of 55 pairs of digits about eleven are held out, in both orders: no task comes twice."""
    tasks = held_out("addition", 1, 100)
    every = {f"add {a}+{b}=" for a in range(10) for b in range(10)}
    assert {task.question for task in tasks} == {q for q in every if is_held_out(q)}
    assert len(tasks) == len({task.question for task in tasks}) < 40


def test_a_text_is_pure_in_its_seed_and_fits(tmp_path, error_of):
    assert compose(5000) == compose(5000) != compose(5000, seed=2)
    assert len(compose(5000)) <= 5000 < len(compose(5000)) + 120
    out = tmp_path / "tasks.txt"
    skills.main(["--bytes", "5000", "--out", str(out)])
    assert out.read_text(encoding="ascii") == compose(5000)
    assert "too short" in error_of(skills.main, "--bytes", "3", "--out", out)
