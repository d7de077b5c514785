"""The repository keeps its own rules: rooms, names, versions, documents that run."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils.config import read_yaml, settings_from, settings_table

ROOT = Path(__file__).parent.parent
ROOMS = {"tok": set(), "model": set(), "data": {"tok"}, "utils": {"tok", "model", "data"}}
OUTSIDE = {"tok": {"regex"}, "model": {"torch"}}  # what these two rooms may have from outside
EXTRAS = {"tiktoken", "tokenizers"}  # imported where asked for, never needed
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]
SCRIPTS = ["train.py", "sample.py", "eval.py", "sweep.py", "bench.py"]


def imports(path):
    """Top-level names of all modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_point_downward(room):
    rooms = set(ROOMS) | {name.removesuffix(".py") for name in SCRIPTS}
    for path in (ROOT / room).glob("*.py"):
        found = set(imports(path))
        assert found & rooms <= ROOMS[room] | {room}, path
        if room in OUTSIDE:
            foreign = found - rooms - sys.stdlib_module_names
            assert foreign <= OUTSIDE[room] | EXTRAS, path


def test_importing_a_room_does_no_work():
    """tok without torch, and nothing printed."""
    code = "import sys, tok, tok.bpe; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == b"False"


def test_scripts_stay_thin():
    for name in SCRIPTS:
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 150, name


def test_version_is_the_changelogs():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"', project, re.M)[1]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(\d.+?)\]", changelog, re.M)[1] == version


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_configs_load_and_say_what_they_are(path):
    settings_from(read_yaml(path))
    head = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert head.count("\n# ") >= 1
    for word in ("Machine:", "Time:", "Reaches:"):
        assert word in head
    assert "?" not in head


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_paths_named_in_documents_exist(path):
    """Anything in `backquotes` that looks like a path of ours is there, or is made by a command."""
    made = (
        "runs/",
        "data/shakespeare",
        "data/wikitext2",
        "data/prepared",
        "data/downloads",
        "tok/bpe.json",
    )
    for name in re.findall(r"`([\w./-]+)`", path.read_text(encoding="utf-8")):
        ours = name.split("/")[0] in {p.name for p in ROOT.iterdir()}
        if ours and not name.startswith(made):
            assert (ROOT / name).exists(), name
    for link in re.findall(
        r"\]\((?!http|\.\./\.\./actions)([\w./-]+)", path.read_text(encoding="utf-8")
    ):
        assert (path.parent / link).exists(), link


def test_the_map_names_every_module():
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    for room in ROOMS:
        for path in (ROOT / room).glob("*.py"):
            if path.name != "__init__.py":
                assert f"`{room}/{path.name}`" in text, path


def test_theory_quotes_the_code():
    """(`file.py`: `code`) in theory.md is a line that stands in the file."""
    quotes = re.findall(
        r"\(`([\w/]+\.py)`: `(.+?)`\)", (ROOT / "docs/theory.md").read_text("utf-8")
    )
    assert len(quotes) > 10
    for name, code in quotes:
        assert code in (ROOT / name).read_text(encoding="utf-8"), (name, code)


def commands():
    """Every command of a fenced block in the documents: (document, line)."""
    for path in DOCS:
        for block in re.findall(r"```(?:sh|bash)\n(.*?)```", path.read_text("utf-8"), re.S):
            for line in block.splitlines():
                if line.strip() and not line.startswith("#"):
                    yield path.name, line.split("  #")[0].strip()


def test_flags_in_documents_exist():
    """Each `python x.py --flag` of the documents is a flag that x.py has."""
    helps = {}
    for document, line in commands():
        words = shlex.split(line, comments=True)
        if words[:1] != ["python"]:
            continue
        target = words[1:3] if words[1] == "-m" else words[1:2]
        key = tuple(target)
        if key not in helps:
            sub = words[3:4] if key == ("-m", "tok.bpe") else []
            helps[key] = subprocess.run(
                [sys.executable, *target, *sub, "--help"],
                cwd=ROOT, capture_output=True, encoding="utf-8", check=True,
            ).stdout  # fmt: skip
        for flag in re.findall(r"--[\w-]+", " ".join(words[1 + len(target) :])):
            assert flag in helps[key], (document, line)


def test_make_targets_in_documents_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for document, line in commands():
        if line.startswith("make "):
            assert line.split()[1] in targets, (document, line)


def test_settings_are_documented():
    """docs/settings.md is what the declarations say: `python -m utils.config` writes it."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_table()


def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    """Blocks of Python run as they stand, beside a my.txt."""
    shutil.copy(ROOT / "data" / "tiny.txt", tmp_path / "my.txt")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert blocks
    for block in blocks:
        exec(block, {})


def quick(line):
    """The same command, made short: few steps, and the environment that runs the tests."""
    if any(name in line for name in ("train.py", "sweep.py", "utils.chaos")):
        line = re.sub(r" --(steps|minutes) \d+", "", line) + " --steps 6 --eval_every 3"
        line += "" if "--sample" in line else " --sample 8"
    if line.startswith("make train"):
        line += " ARGS='--steps 6 --eval_every 3 --sample 8'"
    if ("bench.py" in line and "--profile" not in line) or line == "make bench":
        line = "python bench.py --runs 1 --only tokenizer"
    if line.startswith("make "):
        venv = sys.prefix
        line += f" -o {venv}/.installed -o {venv}/.installed-dev VENV={venv}"
    line = line.replace("torchrun ", "python -m torch.distributed.run --standalone ", 1)
    return line.replace("python ", f"{sys.executable} ", 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32" or not (ROOT / ".git").exists(), reason="needs git")
def test_commands_of_the_readme_run(tmp_path):
    """In a copy of the files that git tracks, one after another, as a new user types them."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True)
    for name in tracked.stdout.decode().split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    tiny = (ROOT / "data" / "tiny.txt").read_text(encoding="utf-8")
    (tmp_path / "my.txt").write_text(tiny + "\n\nROMEO:\n", encoding="utf-8")  # a prompt in docs
    env = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    for _, line in commands():
        if line in ("make test", "make lint", "make test-slow"):
            continue
        if "data.prepare shakespeare" in line:  # no network here: the shape of the command counts
            line = line.replace(" shakespeare ", " my.txt ")
        done = subprocess.run(
            quick(line), shell=True, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-2000:])
    for name in ("runs/tiny/best.pt", "runs/my/eval.json", "runs/plot.png", "tok/bpe.json"):
        assert (tmp_path / name).exists(), name
