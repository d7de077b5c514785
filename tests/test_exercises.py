"""Exercises: ours passes, an emptied function and a plausible mistake do not; people are told."""

import ast
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from utils.exercises import source, watch
from utils.exercises.__main__ import main, verdict
from utils.exercises.grade import Grade, Outcome, grade, judged, run_pytest
from utils.exercises.source import ROOT, every_slug, functions, marked, ours
from utils.exercises.table import TABLE, find, load

ROWS = load()
SAMPLE = "perplexity"  # its tests are quick
EMPTY = re.compile(r"^ *raise NotImplementedError\(\"exercise \d+: .+\"\)$", re.M)


def variants(row):
    """Our file, the same with the function emptied, the same with the mistake of the table."""
    path, function = ours(row.slug)
    empty = function.emptied(f"exercise {row.number}: {row.title}")
    return path, {"ours": function.text, "empty": empty, "wrong": function.changed(*row.wrong)}


def graded(row, kind, limit=120.0):
    path, texts = variants(row)
    return grade(path, texts[kind], row.tests, limit)


def test_every_slug_has_its_exercise_and_the_reverse():
    assert every_slug() == sorted(row.slug for row in ROWS)
    assert [row.number for row in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 25


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.slug)
def test_a_row_of_the_table(row):
    """Its section and tests exist; both changes give valid Python that differs in one function."""
    theory = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    assert re.search(rf"^##+ (\d+\. )?{re.escape(row.theory)}$", theory, re.M)
    assert 1 <= len(row.hints) <= 3
    for file, name in (test.split("[")[0].split("::") for test in row.tests):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
    _, texts = variants(row)
    before = {f.name: f.source() for f in functions(texts["ours"])}
    docs = {f.name: "".join(f.lines[f.start : f.body]) for f in functions(texts["ours"])}
    for kind in ("empty", "wrong"):
        after = functions(texts[kind])
        changed = [f.name for f in after if f.source() != before[f.name]]
        assert changed == [marked(texts[kind])[row.slug].name]
        assert {f.name: "".join(f.lines[f.start : f.body]) for f in after} == docs
    assert len(EMPTY.findall(texts["empty"])) == 1


def test_markers_by_hand():
    text = '''class A:
    @property  # exercise: one
    def f(self):
        """Say."""
        # a comment of ours
        return 1  # exercise: no

# exercise: two
def g(
    x,
):
    return x, "x"
'''
    found = marked(text)
    assert {slug: f.name for slug, f in found.items()} == {"one": "A.f", "two": "g"}
    empty = found["one"].emptied("e")
    assert '"""Say."""\n        raise NotImplementedError("e")\n\n# exercise: two' in empty
    assert found["two"].emptied("e").endswith('):\n    raise NotImplementedError("e")\n')
    assert found["two"].source() == 'def g(\n    x,\n):\n    return x, "x"'
    assert found["one"].source().startswith("    @property\n    def f")
    for old, times in (("x", 2), ("y", 0)):
        with pytest.raises(ValueError, match=f"'{old}' stands {times} times in g, not once"):
            found["two"].changed(old, "z")


def test_a_marker_that_is_there_twice_or_not_at_all_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "ROOT", tmp_path)
    (tmp_path / "tok").mkdir()
    for name in "ab":
        text = "def f():  # exercise: same\n    return 1\n"
        (tmp_path / "tok" / f"{name}.py").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"it is in tok.a\.py and tok.b\.py"):
        ours("same")
    with pytest.raises(ValueError, match="it is in none; is this a whole checkout"):
        ours("other")


@pytest.mark.slow
def test_ours_passes_an_emptied_function_and_a_mistake_do_not():
    """A sample of the sweep below, as `check` runs it; and a loop without end has an end."""
    row = find(SAMPLE)
    path, texts = variants(row)
    endless = texts["empty"].replace("raise NotImplementedError", "while True: str")
    kinds = {**texts, "endless": endless}
    with ThreadPoolExecutor(len(kinds)) as pool:
        limits = {kind: 12.0 if kind == "endless" else 100.0 for kind in kinds}
        jobs = [(path, text, row.tests, limits[kind]) for kind, text in kinds.items()]
        found = dict(zip(kinds, pool.map(lambda job: grade(*job), jobs), strict=True))
    assert {kind: g.passed for kind, g in found.items()} == {
        "ours": True, "empty": False, "wrong": False, "endless": False,
    }  # fmt: skip
    first = found["empty"].outcomes[0]
    assert first.error == f"NotImplementedError: exercise {row.number}: {row.title}"
    assert texts["empty"].splitlines()[first.line - 1].lstrip().startswith("raise")
    assert found["endless"].stuck
    assert "still running after 12 s" in "\n".join(verdict(found["endless"], Path("x.py"), 12))


def in_a_fork(copy, out, tests, limit):
    """`run_pytest` by a process that has imported torch already: 1 s instead of 4."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "numpy"])
    process = context.Process(target=pytest_in, args=(copy, out, tests, limit))
    process.start()
    process.join(limit)
    ended = process.exitcode is not None
    process.kill()
    process.join()
    return ended, (copy / "output.txt").read_text(encoding="utf-8")


def pytest_in(copy, out, tests, limit):
    """Run tests in this process, with nothing of ours imported before."""
    for name in [name for name in sys.modules if name.split(".")[0] in source.ROOMS]:
        del sys.modules[name]
    os.chdir(copy)
    own = {watch.OUT: str(out), watch.LIMIT: str(limit + 10), "PYTHONPATH": str(copy)}
    os.environ |= own
    sys.path.insert(0, str(copy))
    with open("output.txt", "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    flags = ["-q", "-x", "--tb=short", "-p", "no:cacheprovider", "-p", "utils.exercises.watch"]
    pytest.main([*flags, *tests])
    sys.stdout.flush()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks processes")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.slug)
def test_each_exercise_judges_right(row, monkeypatch):
    """Ours passes; the emptied function and the declared mistake do not."""
    monkeypatch.setattr("utils.exercises.grade.run_pytest", in_a_fork)
    found = graded(row, "ours")
    assert found.passed, found.output[-2000:]
    for kind in ("empty", "wrong"):
        found = graded(row, kind)
        assert any(o.failed for o in found.outcomes), found.output[-2000:]
        assert not found.passed
        assert not found.unreadable


def test_what_the_plugin_tells_of_each_test(tmp_path):
    """One that passes, one that fails, and a module that can't even be imported."""
    (tmp_path / "utils" / "exercises").mkdir(parents=True)
    shutil.copy(ROOT / "utils" / "exercises" / "watch.py", tmp_path / "utils" / "exercises")
    test = "import mine\ndef test_a(): mine.f(1)\ndef test_b(): mine.f(2)\n"
    (tmp_path / "test_mine.py").write_text(test, encoding="utf-8")
    tests, told = ["test_mine.py::test_a", "test_mine.py::test_b"], []
    for name, text in (("1", "def f(x):\n    assert x == 1"), ("2", "x = y")):
        (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        out = tmp_path / name
        out.touch()
        ended, output = run_pytest(tmp_path, out, tests, 60)
        events = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        told.append(judged(events, tmp_path, Path("mine.py"), tests, ended, output))
    a, b = told[0].outcomes
    assert (a.passed, a.failed, b.passed, b.failed) == (1, 0, 0, 1)
    assert (b.error, b.line) == ("AssertionError", 2)
    assert told[1].unreadable == "NameError: name 'y' is not defined"
    assert not told[0].passed
    assert not told[1].passed


def test_events_become_a_grade(tmp_path):
    """Parameters are counted together; a test that never ran does not pass."""
    tests = ["tests/t.py::a", "tests/t.py::b[2]", "tests/t.py::c"]
    calls = [["tests/t.py", 3], ["model/x.py", 7], ["model/y.py", 9]]
    failed = {"outcome": "failed", "error": "E: no", "calls": calls}
    events = [
        {"test": "tests/t.py::a[1]", "outcome": "started"},
        {"test": "tests/t.py::a[1]", "outcome": "passed"},
        {"test": "tests/t.py::a[2]", **failed},
        {"test": "tests/t.py::b[2]", "outcome": "passed"},
    ]
    found = judged(events, tmp_path, Path("model/x.py"), tests, True, "")
    assert found.outcomes[0] == Outcome(tests[0], passed=1, failed=1, error="E: no", line=7)
    assert [o.passed for o in found.outcomes] == [1, 1, 0]
    assert not found.passed
    assert judged(events[3:], tmp_path, Path("x"), tests[1:2], True, "").passed
    assert not judged([], tmp_path, Path("x"), tests, True, "").passed
    skipped = [{"test": tests[2], "outcome": "skipped"}]
    assert not judged(skipped, tmp_path, Path("x"), tests[2:], True, "").passed
    begun = judged(events[:1], tmp_path, Path("x"), tests, False, "")
    assert begun.stuck == tests[0]
    assert "a: still running after 9 s; an infinite loop?" in verdict(begun, Path("x"), 9)[0]


def test_a_verdict_is_in_plain_words():
    test = "tests/test_evaluate.py::test_score_by_hand"
    error = "AssertionError: " + "assert 1 == 2 " * 30
    found = Grade([Outcome(test, 2, 1, 0, error, 34)])
    lines = verdict(found, Path("mine.py"), 60)
    assert lines[0] == "  FAILED  test_score_by_hand (1 of 3 cases)"
    assert lines[1].strip() == "Two tokens of ln 16 nats each, for one byte: 8 bits."
    assert len(lines[2].strip()) <= 160
    assert lines[3].strip() == "at line 34 of mine.py"
    assert len(lines) == 4


@pytest.fixture
def passing(monkeypatch):
    """A grader that passes whatever has no NotImplementedError in it: no process is started."""

    def quick(module, text, tests, limit):
        empty = "NotImplementedError" in text
        error = "NotImplementedError: exercise 1: x" if empty else ""
        return Grade([Outcome(t, int(not empty), int(empty), 0, error) for t in tests])

    monkeypatch.setattr("utils.exercises.__main__.grade", quick)


def test_the_life_of_an_exercise(capsys, passing):
    """start, check, hint, answer, check, status: by number or slug, and the log remembers."""
    row = find("causal-mask")
    path = Path(f"runs/exercises/{row.number:02d}-causal-mask/attention.py")
    assert main(["start", str(row.number)]) == 0
    said = capsys.readouterr().out
    line = path.read_text("utf-8").splitlines()[int(re.search(r"line (\d+)", said)[1]) - 1]
    assert "raise NotImplementedError" in line
    for text in (str(path), "test_causal_mask_by_hand", "section 9, How do we forbid the future?"):
        assert text in " ".join(said.split())
    assert main(["check", "causal-mask"]) == 1
    assert "it is still empty" in capsys.readouterr().out
    for seen in (1, 2, 3, 3):
        assert main(["hint", "causal-mask"]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert [" ".join(h.split()) in said for h in row.hints] == [i < seen for i in range(3)]
    assert main(["answer", "causal-mask"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("# model/attention.py, line ")
    assert said.split("\n", 1)[1].rstrip("\n") == ours("causal-mask")[1].source()
    path.write_text(ours("causal-mask")[1].text, encoding="utf-8")
    assert main(["check", "causal-mask"]) == 0
    assert f"passed in 0 s: {row}" in capsys.readouterr().out
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "2 attempts, 3 hints, answer seen" in said
    assert f"1 of {len(ROWS)} passed" in said
    assert "next: python -m utils.exercises start 1 " in said
    log = json.loads(Path("runs/exercises/log.json").read_text("utf-8"))
    assert log["version"] == 1
    entry = log["exercises"]["causal-mask"]
    assert (entry["attempts"], entry["hints"]) == (2, 3)
    assert entry["started"] <= entry["answer"] <= entry["passed"]
    assert main(["list"]) == 0
    assert f"{row.number:3}  passed   causal-mask" in capsys.readouterr().out


def test_work_is_never_overwritten(capfd, error_of, passing):
    main(["start", "top-k"])
    path = next(Path("runs/exercises").glob("*-top-k/sampling.py"))
    path.write_text("mine = 1\n", encoding="utf-8")
    assert "is there already; `start" in error_of(main, "start", "top-k")
    assert path.read_text("utf-8") == "mine = 1\n"
    for n in (1, 2):
        assert main(["start", "top-k", "--again"]) == 0
        aside = path.parent.with_name(f"{path.parent.name}-{n}")
        assert str(aside) in capfd.readouterr().out
    assert (aside.with_name(aside.name[:-1] + "1") / "sampling.py").read_text() == "mine = 1\n"
    assert "NotImplementedError" in path.read_text("utf-8")


def test_a_module_of_ours_that_has_changed_is_said(capsys, passing):
    main(["start", "top-k"])
    log = Path("runs/exercises/log.json")
    sha256 = json.loads(log.read_text("utf-8"))["exercises"]["top-k"]["sha256"]
    log.write_text(log.read_text("utf-8").replace(sha256, "0" * 64), encoding="utf-8")
    assert main(["check", "top-k"]) == 1
    assert "sampling.py has changed since you began" in capsys.readouterr().out


@pytest.mark.parametrize(("args", "says"), [
    (["start"], "start which one?"),
    (["start", "0"], f"there is no exercise 0; they are 1 to {len(ROWS)}"),
    (["check", "99"], "there is no exercise 99"),
    (["hint", "-3"], "-3"),
    (["start", "causal-mosk"], "did you mean causal-mask?"),
    (["begin", "1"], "invalid choice"),
    (["check", "1"], "score.py; begin with: python -m utils.exercises start 1"),
    (["check", "1", "--limit", "0"], "--limit 0 must be above 0"),
    (["status", "--foldr", "x"], "did you mean --folder?"),
])  # fmt: skip
def test_mistakes_are_one_line(error_of, args, says):
    assert says in error_of(main, *args)


@pytest.mark.parametrize(("text", "says"), [
    ("def largest(x, k)\n    return x\n", "sampling.py, line 1: "),
    ("def smallest(x, k):\n    return x\n", "has no function largest any more; put it back"),
    ("", "has no function largest any more"),
    ("x = '\0'\n", "sampling.py"),
    (b"x = '\xff'\n", "is not a Python file in UTF-8"),
])  # fmt: skip
def test_files_that_can_not_be_judged_are_one_line(error_of, text, says, passing):
    main(["start", "top-k"])
    path = next(Path("runs/exercises").glob("*-top-k/sampling.py"))
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert says in error_of(main, "check", "top-k")


@pytest.mark.parametrize(("text", "says"), [
    ("{", "log.json is damaged; move it away"),
    ("[]", "is damaged"),
    ('{"version": 2, "exercises": {}}', "has version 2, this program reads 1"),
    ('{"version": 1, "exercises": {"top-k": {"hints": "many"}}}', "is damaged"),
])  # fmt: skip
def test_a_damaged_log_is_one_line(error_of, text, says):
    Path("runs/exercises").mkdir(parents=True)
    Path("runs/exercises/log.json").write_text(text, encoding="utf-8")
    assert says in error_of(main, "status")


def test_a_folder_that_is_a_file_is_one_line(error_of):
    Path("mine").touch()
    assert "mine" in error_of(main, "start", "1", "--folder", "mine")


def test_rows_that_lack_something_are_refused(tmp_path, monkeypatch):
    text = TABLE.read_text(encoding="utf-8")
    for old, new, says in (
        ("  title: ", "  titel: ", "'titel' is missing, or has no meaning"),
        ("version: 1", "version: 2", "has version 2"),
    ):
        path = tmp_path / "table.yaml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        monkeypatch.setattr("utils.exercises.table.TABLE", path)
        with pytest.raises(ValueError, match=says):
            load()


def test_without_tests_there_is_nothing_to_judge_by(tmp_path, monkeypatch):
    """As where the package was installed without its repository."""
    monkeypatch.setattr("utils.exercises.grade.ROOT", tmp_path)
    with pytest.raises(ValueError, match="exercises need a checkout"):
        grade(Path("x.py"), "", ["tests/x.py::y"])


def test_tests_end_by_themselves(tmp_path):
    """`check` was killed, and the learner's infinite loop ran on, with nobody to end it."""
    (tmp_path / "test_loop.py").write_text("def test_loop():\n    while True:\n        pass\n")
    own = {watch.OUT: str(tmp_path / "out"), watch.LIMIT: "0.5", "PYTHONPATH": str(ROOT)}
    flags = ["-q", "-p", "no:cacheprovider", "-p", "utils.exercises.watch"]
    command = [sys.executable, "-m", "pytest", *flags, "test_loop.py"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | own, timeout=60)
    assert done.returncode == 1
