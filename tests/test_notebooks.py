"""docs/notebooks: each has been run from the top, what it shows is kept, and it runs again."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils import notebooks
from utils.exercises.table import load

ROOT = Path(__file__).parent.parent
NAMES = ["1_tokenizer", "2_attention", "3_training", "4_sampling", "5_embeddings", "6_one_step"]
ABSOLUTE = re.compile(r"(?<![\w.:/])/\w+/\w|\b[A-Z]:\\\w")  # /tmp/x, C:\x


def read(name, folder=notebooks.FOLDER):
    return json.loads((folder / f"{name}.ipynb").read_text(encoding="utf-8"))


def code_cells(book):
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def texts(cell):
    """What a cell shows as text."""
    for output in cell["outputs"]:
        yield "".join(output.get("text", output.get("data", {}).get("text/plain", [])))


def kinds(book):
    """What each cell shows: the kinds of its outputs."""
    return [
        [output.get("name") or sorted(output["data"]) for output in cell["outputs"]]
        for cell in code_cells(book)
    ]


def test_there_are_six():
    assert sorted(path.stem for path in notebooks.FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_a_notebook_shows_is_kept(name):
    """Run in one go from the top; pictures; no error, no warning, no path of a machine."""
    book = read(name)
    cells = code_cells(book)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 2
    for text in (text for cell in cells for text in texts(cell)):
        assert not ABSOLUTE.search(text), text
    assert set(book["metadata"]) == {"kernelspec", "language_info"}  # no versions
    assert (notebooks.FOLDER / f"{name}.ipynb").stat().st_size < 400_000


@pytest.mark.parametrize("name", NAMES)
def test_what_a_notebook_names_is_there(name):
    """Its links, and the exercises that it ends with."""
    book = read(name)
    prose = "\n".join("".join(c["source"]) for c in book["cells"] if c["cell_type"] == "markdown")
    for link in re.findall(r"\]\((?!http)([^)#]+)", prose):
        assert (notebooks.FOLDER / link).exists(), link
    named = re.findall(r"`([\w-]+)`", re.search(r"Exercises: (.*)", prose)[1].split("(")[0])
    assert named
    assert set(named) <= {row.slug for row in load()}


def test_the_command_refuses(error_of):
    assert "did you mean 2_attention?" in error_of(notebooks.main, "2_atention")


def test_without_jupyter_it_says_what_to_install(error_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbclient", None)
    pytest.importorskip("nbformat")
    assert "pip install 'llm-tiny[notebooks]'" in error_of(notebooks.main, "1_tokenizer")


def run(*args, cwd):
    """`python -m utils.notebooks` in a process of its own."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    return subprocess.run(
        [sys.executable, "-m", "utils.notebooks", *args],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(cwd)}, capture_output=True, encoding="utf-8",
    )  # fmt: skip


@pytest.mark.slow
def test_a_cell_that_fails_is_named(tmp_path):
    """And the notebook that is there stays as it is."""
    folder = tmp_path / "docs" / "notebooks"
    folder.mkdir(parents=True)
    shutil.copytree(ROOT / "utils", tmp_path / "utils")
    shutil.copytree(ROOT / "tok", tmp_path / "tok")
    cells = [("markdown", "# a"), ("code", "x = 1"), ("code", "x / 0"), ("code", "x")]
    book = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}
    for i, (kind, source) in enumerate(cells):
        cell = {"cell_type": kind, "id": str(i), "metadata": {}, "source": source}
        book["cells"].append(
            cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})
        )
    before = json.dumps(book)
    (folder / "a.ipynb").write_text(before, encoding="utf-8")
    done = run(cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("a.ipynb, cell 3: ZeroDivisionError: division by zero")
    assert (folder / "a.ipynb").read_text(encoding="utf-8") == before


@pytest.mark.slow
def test_all_run_from_a_fresh_clone(tmp_path):
    """Without a trained model: the first that needs one trains it. They show what they kept."""
    leave = shutil.ignore_patterns("__pycache__", "prepared", "downloads", "*.pt")
    for name in ("tok", "model", "data", "utils", "configs", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=leave)
    for path in ROOT.glob("*.py"):
        shutil.copy2(path, tmp_path)
    done = run("--out", "shown", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "notebook" / "best.pt").exists()
    for name in NAMES:
        assert kinds(read(name, tmp_path / "shown")) == kinds(read(name)), name
