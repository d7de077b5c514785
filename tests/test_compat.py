"""Runs, prepared data and tokenizers of earlier versions go on as those versions did.

fixtures/make.py made them with the old code: runs/NAME was stopped by Ctrl-C in its 7th step of
12, whole/NAME is what the run became without that, and what the stopped one wrote and scored.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import eval
import sample
import tok
import train
from data import prepare
from tok.storage import fingerprint

FIXTURES = Path(__file__).parent / "fixtures"
RUNS = ["before-0.2.0/char", "before-0.2.0/muon", "v0.1.0/adamw"]
CLOCK = {"seconds", "tokens_per_s"}
KEPT = ("best_val_loss", "best_step", "steps", "tokens", "params", "data")
OLD = pytest.mark.parametrize("old", RUNS, indirect=True)
OLD_DATA = pytest.mark.parametrize("old", ["before-0.2.0", "v0.1.0"], indirect=True)


@pytest.fixture
def old(request, tmp_path):
    """The name of a run of one version, whose files are copied to where the test starts."""
    version, _, name = request.param.partition("/")
    shutil.copytree(FIXTURES / version, tmp_path, dirs_exist_ok=True)
    for text in FIXTURES.glob("*.txt"):
        shutil.copy(text, tmp_path)
    return name


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def rows(path):
    """Rows of a metrics.csv, without the columns of the clock and those that are empty."""
    with open(path, encoding="utf-8", newline="") as f:
        found = list(csv.DictReader(f))
    return [{k: float(v) for k, v in row.items() if v and k not in CLOCK} for row in found]


def check(then, now, rel=1e-6):
    """What the old file says, the new one says: CPUs differ in the last digits of a float."""
    if isinstance(then, dict):
        for key, value in then.items():
            check(value, now[key], rel)
    else:
        assert now == (pytest.approx(then, rel=rel) if isinstance(then, float) else then)


def test_a_run_of_every_version_is_here():
    assert ["/".join(p.parts[-3::2]) for p in sorted(FIXTURES.glob("*/runs/*"))] == RUNS


@pytest.mark.skipif(
    not torch.__version__.startswith("2.13."), reason="dropout of another torch draws other masks"
)
@OLD
def test_an_old_run_resumes_as_if_it_had_never_stopped(old):
    """To the last digits, but with Muon, whose steps were made by other rounds of products then."""
    loose = 0.02 if old == "muon" else 0
    assert train.main(["--run", old, "--resume"]) == 0
    want, got = rows(f"whole/{old}/metrics.csv"), rows(f"runs/{old}/metrics.csv")
    assert len(got) == len(want) == 10
    for then, now in zip(want, got, strict=True):
        check(then, now, loose or 1e-6)
    weights = torch.load(f"whole/{old}/weights.pt", weights_only=True)
    learnt = torch.load(f"runs/{old}/last.pt", weights_only=True)["model"]
    torch.testing.assert_close(learnt, weights, rtol=1e-5, atol=loose or 1e-6)
    then, now = read(f"whole/{old}/summary.json"), read(f"runs/{old}/summary.json")
    check({key: then[key] for key in KEPT}, now, loose or 1e-6)


@OLD
def test_an_old_run_writes_and_is_scored_as_then(old, capfd):
    """A mixture as training had scored it: eval.py joined its texts, which gave other windows."""
    how = ["--temp", "0.8" if old != "adamw" else "0"]  # a seed gave other texts in 0.1.0
    flags = ["--run", old, "--device", "cpu"]
    sample.main([*flags, "--steps", "40", "--seed", "1", "--prompt", "the", *how])
    assert capfd.readouterr().out == Path(f"whole/{old}/sample.txt").read_text(encoding="utf-8")
    eval.main(flags)
    then = read(f"whole/{old}/eval.json")
    if old == "muon":
        scored = [row for row in rows(f"whole/{old}/metrics.csv") if "val_loss" in row]
        scored = next(row for row in scored if row["step"] == then["step"])
        then["model"] = {"val_loss": scored["val_loss"], "ppl": scored["val_ppl"]}
    check(then, read(f"runs/{old}/eval.json"))


@OLD_DATA
@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_the_same_text_prepares_to_the_same_ids(old, kind):
    """With a new tokenizer, and with the old one from its file."""
    texts = ["a.txt", "b.txt"] if kind == "bpe" else ["b.txt"]
    for tokenizer in (kind, f"prepared/{kind}/tokenizer.json"):
        prepare.main([*texts, "--vocab", "272", "--tokenizer", tokenizer, "--out", "again"])
        for file in ("train.bin", "val.bin"):
            assert Path("again", file).read_bytes() == Path("prepared", kind, file).read_bytes()
        new, before = (
            fingerprint(Path(p, "tokenizer.json")) for p in ("again", f"prepared/{kind}")
        )
        assert new == before  # all but the checksum, which is new
        check(read(f"prepared/{kind}/meta.json"), read("again/meta.json"))


@OLD_DATA
def test_old_prepared_data_trains(old):
    """Two models on it, both kinds of tokenizer: as wide as its vocabulary, on its ids."""
    for kind, vocab_size in {"bpe": 272, "char": 29}.items():
        flags = ["--data", f"prepared/{kind}", "--run", kind, "--device", "cpu", "--steps", "1"]
        small = ["--n_layer", "1", "--n_head", "2", "--d_model", "8", "--block_size", "16"]
        assert train.main([*flags, *small, "--sample", "0"]) == 0
        assert read(f"runs/{kind}/summary.json")["data"] == read(f"prepared/{kind}/meta.json")
        tokenizer = tok.load(f"prepared/{kind}/tokenizer.json")
        ids = np.fromfile(f"prepared/{kind}/val.bin", dtype=np.uint16).tolist()
        assert tokenizer.vocab_size == vocab_size
        assert tokenizer.encode(tokenizer.decode(ids), allowed_special="all") == ids
