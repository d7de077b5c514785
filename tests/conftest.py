"""What the tests share: a short text, a quick run on it, a way to call a script as people do."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # toy sizes: a second thread only costs

import pytest
import torch

from tok.cli import run as run_script

torch.set_num_threads(1)

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "dog", "run", "to", "old", "red"]
WORDS += ["barn", "by", "sea", "the", "the"]
TOY = ["--n_layer", "1", "--n_head", "2", "--d_model", "16", "--block_size", "16"]
TOY += ["--dtype", "float32"]  # on any machine
TOY += ["--batch_size", "4", "--device", "cpu", "--sample", "8", "--vocab", "280"]
# GPT-2's way, whatever the default is
TOY += ["--optimizer", "adamw", "--schedule", "cosine", "--warmup", "50", "--grad_clip", "1"]
TOY += ["--mlp", "gelu", "--qk_norm", "false", "--zero_init", "false", "--emb_std", "0.02"]
TOY += ["--emb_conv", "0", "--tie_weights", "true", "--dropout", "0", "--patience", "0"]


def make_text(n=6000):
    """About n characters of varied words, always the same."""
    words, length, i = [], 0, 7
    while length < n:
        i = (i * 1103515245 + 12345) % 2**31
        words.append(WORDS[(i >> 16) % len(WORDS)] + (".\n" if i % 11 == 0 else ""))
        length += len(words[-1]) + 1
    return " ".join(words)


def shared(name):
    """A file or folder of ../shared/data, beside this checkout; where it is not, the test skips."""
    path = Path(__file__).parents[2] / "shared" / "data" / name
    if not path.exists():
        pytest.skip(f"put {name} into ../shared/data, beside this checkout")
    return path


def shared_texts():
    """All texts of ../shared/data, or the test skips: over none of them it would prove nothing."""
    paths = sorted(shared("").glob("*.txt"))
    return paths or pytest.skip("put texts (*.txt) into ../shared/data, beside this checkout")


def pytest_collection_modifyitems(items):
    """The longest test first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.name != "test_commands_of_the_readme_run")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Each test prepares into its own cache, and starts in its own directory."""
    cache = tmp_path / "cache"
    monkeypatch.setattr("data.hashes.CACHE", cache)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "my.txt"
    path.write_text(make_text(), encoding="utf-8")
    return path


@pytest.fixture
def toy_run(text_file):
    """A run of 6 steps, runs/my, as `train.py --data my.txt` makes it."""
    import train

    flags = ["--data", str(text_file), "--steps", "6", "--eval_every", "3", "--lr", "3e-3"]
    assert train.main([*flags, *TOY]) == 0
    return text_file.parent / "runs" / "my"


@pytest.fixture
def error_of(monkeypatch, capfd):
    """Call a script's main as its `__main__` does; give the one line it says when it refuses."""

    def call(main, *args):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_script(main)
        err = capfd.readouterr().err
        assert stop.value.code == 2, err
        lines = [line for line in err.splitlines() if line]
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        return lines[0]

    return call
