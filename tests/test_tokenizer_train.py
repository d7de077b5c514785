"""`python -m tok.train`, and the other commands with what it makes."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TOY, make_text

import tok
from data import prepare
from data.encode import unknown_line
from tok import END_OF_TEXT, KINDS, WordPieceTokenizer
from tok import train as command
from tok.bpe import __main__ as bpe
from tok.wordpiece import __main__ as wordpiece


@pytest.mark.parametrize("kind", command.TRAINERS)
def test_every_kind_is_learnt_saved_and_used(kind, text_file, capsysbinary):
    flags = ["--kind", kind, "--vocab", "300", "--out", "t.json", str(text_file)]
    command.main(flags)
    made = tok.load("t.json")
    assert type(made) is KINDS[kind]
    said = capsysbinary.readouterr().err.decode()
    assert said.startswith(f"t.json: {kind}, {made.vocab_size} tokens")
    assert END_OF_TEXT in made.special_tokens
    bpe.main(["encode", str(text_file), "--tokenizer", "t.json", "--out", "ids"])
    assert list(map(int, Path("ids").read_text().split())) == made.encode(make_text())
    assert not capsysbinary.readouterr().err
    bpe.main(["decode", "ids", "--tokenizer", "t.json"])
    back = capsysbinary.readouterr().out.decode()
    if made.lossless:
        assert back == make_text()
    else:
        assert back.split() == make_text().split()
    command.main([*flags, "--workers", "2"])
    assert tok.load("t.json").encode("the cat") == made.encode("the cat")


def test_flags_of_the_kinds(text_file):
    def made(*flags):
        command.main([*flags, "--out", "t.json", "--vocab", "270", str(text_file)])
        return tok.load("t.json")

    assert made("--kind", "wordpiece", "--cased").encode("THE") == [1]
    assert made("--kind", "wordpiece", "--min_frequency", "200").vocab_size < 100
    assert made("--kind", "bpe", "--pattern", "gpt4").pattern == "gpt4"
    assert made("--kind", "bpe", "--special", "<a>", "--special", "<b>").special_tokens.keys() == {
        "<a>",
        "<b>",
    }
    assert END_OF_TEXT not in made("--kind", "wordpiece", "--no-special").special_tokens


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--kind word", "invalid choice: 'word'"),
        ("--kind char --cased", "--cased does not go with --kind char"),
        ("--kind bpe --min_frequency 3", "--min_frequency does not go with --kind bpe"),
        ("--kind wordpiece --pattern gpt4", "--pattern does not go with --kind wordpiece"),
        ("--kind wordpiece --special a --no-special", "exclude each other"),
        ("--kind wordpiece --vocab 9", "vocab_size=9 is smaller than"),
        ("--kind wordpiece --min_frequency 0", "min_frequency=0; give 1 or more"),
    ],
)
def test_wrong_flags(flags, says, text_file, error_of):
    assert says in error_of(command.main, *flags.split(), "--out", "t.json", text_file)
    assert not Path("t.json").exists()


def test_what_a_vocabulary_cannot_spell_is_counted(monkeypatch, capsysbinary):
    """[UNK] among the ids, and a line on stderr; nothing else is said there."""
    WordPieceTokenizer(["[UNK]", "a", "##b"]).save("w.json")
    stdin = io.TextIOWrapper(io.BytesIO("ab c é a ab".encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    bpe.main(["encode", "--tokenizer", "w.json"])
    out, err = capsysbinary.readouterr()
    assert out == b"1 2 0 0 1 1 2\n"
    assert err.decode() == "note: 2 [UNK], for words that the vocabulary can't spell\n"


def test_import(error_of):
    Path("vocab.txt").write_text("[UNK]\n[CLS]\nA\na\n", encoding="utf-8")
    wordpiece.main(["import", "vocab.txt", "--out", "w.json", "--special", "<e>"])
    made = tok.load("w.json")
    assert made.encode("A a") == [3, 3]
    assert made.special_tokens == {"[UNK]": 0, "[CLS]": 1, "<e>": 4}
    wordpiece.main(["import", "vocab.txt", "--out", "w.json", "--cased"])
    assert tok.load("w.json").encode("A a") == [2, 3]
    made.save_hf("tokenizer.json")
    wordpiece.main(["import", "tokenizer.json", "--out", "w.json"])
    assert tok.load("w.json").special_tokens == made.special_tokens
    said = error_of(wordpiece.main, "import", "tokenizer.json", "--cased")
    assert "go with a vocab.txt" in said
    Path("vocab.txt").write_text("[UNK]\na\na\n", encoding="utf-8")
    said = error_of(wordpiece.main, "import", "vocab.txt", "--out", "new.json")
    assert "vocab.txt: lines 2 and 3 are both 'a'" in said
    assert not Path("new.json").exists()


def test_prepared_documents_end_where_they_end():
    text = f"the cat{END_OF_TEXT}The Dog!{END_OF_TEXT}a cat, a dog{END_OF_TEXT}"
    Path("d.txt").write_text(text * 40, encoding="utf-8")
    prepare.main(["d.txt", "--tokenizer", "wordpiece", "--vocab", "60", "--out", "p"])
    data = prepare.open_dataset("p")
    assert data.meta["documents"] == 120
    end = data.tokenizer.special_tokens[END_OF_TEXT]
    assert data.end == end
    assert np.count_nonzero(data.train == end) + np.count_nonzero(data.val == end) == 120
    assert data.tokenizer.decode(data.train[:6]) == "the cat <|endoftext|> the dog!"
    assert (data.meta["val_bytes"] > 0, data.val_bytes) == (True, 0)  # lossy: see `val_bytes`


def test_a_text_that_is_partly_unknown_is_said(capsys):
    Path("t.txt").write_text("the cat sat. " * 90 + "the xat sat. " * 10, encoding="utf-8")
    prepare.main(["t.txt", "--tokenizer", "wordpiece", "--vocab", "60", "--out", "p"])
    err = capsys.readouterr().err
    assert "warning: in validation 10 of 40 tokens (25.00%) are [UNK]: words that" in err
    assert "in training" not in err
    assert unknown_line(tok.CharTokenizer("ab"), np.zeros(3)) == ""


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_train_sample_eval(kind, text_file, capsys):
    """From --tokenizer to text; of a lossy tokenizer no bits per byte are printed or kept."""
    import csv
    import json

    import eval as score
    import sample
    import train

    flags = ["--data", str(text_file), "--steps", "4", "--eval_every", "2", "--lr", "3e-3"]
    assert train.main([*flags, *TOY, "--vocab", "300", "--tokenizer", kind]) == 0
    run = text_file.parent / "runs" / "my"
    assert type(tok.load(run / "tokenizer.json")) is KINDS[kind]
    lossless = KINDS[kind].lossless
    assert ("bits/byte" in capsys.readouterr().out) == lossless
    rows = list(csv.DictReader((run / "metrics.csv").read_text("utf-8").splitlines()))
    bits = [row["val_bits_per_byte"] for row in rows if row["val_loss"]]
    assert len(bits) == 2
    assert all(map(bool, bits)) == lossless
    score.main(["--device", "cpu"])
    out = capsys.readouterr().out
    assert ("note: no bits per byte, for the ids do not keep the text" in out) != lossless
    kept = json.loads((run / "eval.json").read_text(encoding="utf-8"))
    assert ("bits_per_byte" in kept["model"], "val_loss" in kept["bigram"]) == (lossless, True)
    for prompt in ("the cat", ""):
        sample.main(["--prompt", prompt, "--steps", "5", "--device", "cpu", "--seed", "1"])
        assert prompt in capsys.readouterr().out


def test_a_sweep_cannot_rank_what_has_no_bits_per_byte():
    from utils.sweep.space import Sweep
    from utils.sweep.table import Point

    with pytest.raises(ValueError, match="tokenizer=wordpiece has no bits per byte to rank by"):
        Sweep("c.yaml", Path("x"), {"tokenizer": ["bpe", "wordpiece"]})
    Sweep("c.yaml", Path("x"), {"tokenizer": ["wordpiece"], "lr": [1, 2]})  # ranked by its loss
    lost = Point({}, runs=[{"bits_per_byte": float("nan")}], measure="bits_per_byte")
    assert lost.finish() == float("inf")
    assert (lost.status, lost.note) == ("done", "no bits per byte: the tokenizer loses text")


def test_a_comparison_without_bits_per_byte_says_so():
    from utils.compare import Group, report

    def group(name, bits):
        figures = {"val_loss": 2.0, "val_ppl": 7.4, "seconds": 1, "tokens": 9, "tokens_per_s": 9}
        rows = [figures | {"bits_per_byte": bits, "params": 5}] * 2
        data = [{"text_sha256": "t", "val_bytes": 9, "tokenizer_sha256": name}] * 2
        return Group(name, [{"tokenizer": name, "seed": 1, "objective": "next"}] * 2, data, rows)

    said = report([group("bpe", 1.5), group("wordpiece", float("nan"))])
    assert "note: nor do bits per byte, where a tokenizer does not keep the text" in said
    assert "nan" not in said
    assert "B - A" not in said
    assert "B - A" in report([group("bpe", 1.5), group("char", 1.6)])
