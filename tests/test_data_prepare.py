"""data/prepare.py: what is split by document, what stands twice, what a crash left behind."""

import os
import random
import time

import numpy as np
from conftest import TOY, make_text

import train
from data import overlap as o
from data import prepare
from data.loader import open_prepared
from data.overlap import RUN, overlap
from data.prepare import prepared, split_documents, write_prepared


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
    meta = write_prepared(tmp_path / "clean", train_text, val, tokenizer="char")
    assert meta["val_overlap"] == 0.0
    meta = write_prepared(tmp_path / "twice", train_text + val[:400], val, tokenizer="char")
    assert abs(meta["val_overlap"] - 388 / (len(val) - 12)) < 0.01
    (tmp_path / "t.txt").write_text(train_text + val[:400] + val, encoding="utf-8")
    prepare.main(["t.txt", "--tokenizer", "char", "--out", "o"])
    assert "warning: " in capsys.readouterr().err
    train.main(["--data", "t.txt", "--tokenizer", "char", "--steps", "1", *TOY])
    assert "of the runs of 13 tokens in validation also stand in" in capsys.readouterr().out


def test_split_by_document(tmp_path):
    """About a tenth; equal documents on one side; a longer text moves none."""
    docs = [f"story {i % 500} of many" for i in range(1000)]
    train, val = (part.split("\n\n")[:-1] for part in split_documents("\n\n".join(docs), "\n\n"))
    assert sorted(train + val) == sorted(docs)
    assert not set(train) & set(val)
    assert 60 <= len(val) <= 140
    more = split_documents("\n\n".join([*docs, "a new one"]), "\n\n")[1].split("\n\n")
    assert set(val) <= set(more)


def test_split_by_document_is_a_flag(tmp_path, error_of):
    (tmp_path / "d").write_text("\n\n".join(f"tale number {i}" for i in range(200)))
    prepare.main(
        ["d", "--doc_sep", "\\n\\n", "--split", "document", "--vocab", "260", "--out", "p"]
    )
    data = open_prepared("p")
    assert data.meta["documents"] == 200
    assert "tale number 199" in data.tokenizer.decode(data.train) + data.tokenizer.decode(data.val)
    said = error_of(prepare.main, "d", "--split", "document", "--out", "q")
    assert "1 documents are too few" in said


def test_a_damaged_cache_entry_is_made_again(text_file, capsys):
    path = prepared(text_file)
    good = (path / "val.bin").read_bytes()
    (path / "val.bin").write_bytes(b"\0")
    assert prepared(text_file) == path
    assert (path / "val.bin").read_bytes() == good
    assert "val.bin has 1 bytes" in capsys.readouterr().err


def test_what_a_killed_preparation_left_is_removed_after_a_day(tmp_path):
    old, new, foreign = (tmp_path / f".p-{name}" for name in ("old", "new", "foreign"))
    for path, file in (old, "train.bin"), (new, "train.bin"), (foreign, "mine"):
        path.mkdir()
        (path / file).write_text("x")
    for path in old, foreign:
        os.utime(path, (time.time() - 90000,) * 2)
    write_prepared(tmp_path / "p", make_text(), make_text(500), tokenizer="char")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] == ".") == [
        ".p-foreign",
        ".p-new",
    ]
