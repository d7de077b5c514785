"""data/overlap.py: what stands both in training and in validation."""

import random

import numpy as np
from conftest import TOY

import train
from data import overlap as o
from data import prepare
from data.overlap import RUN, overlap
from data.prepare import write_prepared


def by_hand(train, val):
    """The same share through Python's sets of tuples."""
    a, b = ([tuple(t[i : i + RUN]) for i in range(len(t) - RUN + 1)] for t in (train, val))
    return sum(w in set(a) for w in b) / max(1, len(b))


def test_overlap_against_sets(monkeypatch):
    rng = np.random.default_rng(1)
    monkeypatch.setattr(o, "BLOCK", 50)  # duplicates across the borders of blocks
    for n in 0, 5, 13, 40, 300:
        train = rng.integers(0, 999, 400).astype(np.uint16)
        val = rng.integers(0, 999, n).astype(np.uint16)
        val[: n // 2] = train[40 : 40 + n // 2]
        assert overlap(train, val) == by_hand(train.tolist(), val.tolist())
    assert overlap(train, train[40:60].astype(np.uint32)) == 1.0
    assert overlap(train[:12], train) == 0.0


def test_an_injected_duplicate_is_found_and_said(tmp_path, capsys):
    """By data.prepare, and by train.py, which prepares a text on its own."""
    words = random.Random(3).choices([f"{i:03}" for i in range(999)], k=2000)
    train_text, val = " ".join(words[:1800]), " ".join(words[1800:])
    meta = write_prepared(tmp_path / "clean", [train_text], [val], tokenizer="char")
    assert meta["val_overlap"] == 0.0
    meta = write_prepared(tmp_path / "twice", [train_text + val[:400]], [val], tokenizer="char")
    assert abs(meta["val_overlap"] - 388 / (len(val) - 12)) < 0.01
    (tmp_path / "t.txt").write_text(train_text + val[:400] + val, encoding="utf-8")
    prepare.main(["t.txt", "--tokenizer", "char", "--out", "o"])
    assert "warning: " in capsys.readouterr().err
    train.main(["--data", "t.txt", "--tokenizer", "char", "--steps", "1", *TOY])
    assert "of the runs of 13 tokens in validation also stand in" in capsys.readouterr().out


def test_of_a_long_validation_text_a_sample_is_asked_for(monkeypatch):
    """200,000 windows, half of them in training, at most 20,000 asked for; also if all are one."""
    rng = np.random.default_rng(2)
    val = rng.integers(0, 60_000, 200_000).astype(np.uint16)
    monkeypatch.setattr(o, "LIMIT", 20_000)
    monkeypatch.setattr(o, "BLOCK", 30_000)
    asked, count = o.sample(val)
    assert 17_000 < len(asked) == count.sum() < 20_000
    assert abs(overlap(val[:100_000], val) - 0.5) < 0.02
    assert sum(map(len, o.sample(np.zeros(200_000, np.uint16)))) <= 2
