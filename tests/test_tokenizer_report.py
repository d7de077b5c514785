"""`python -m utils.tokenizer_report`: a table worked out by hand, and a plot."""

from pathlib import Path

import pytest

from tok import BPETokenizer, cli
from utils import tokenizer_report as report


@pytest.fixture
def here(tmp_path):
    """A text and a tokenizer in the working directory, which conftest makes."""
    Path("a.txt").write_text("the cat sat on the mat. " * 20, "utf-8")
    BPETokenizer.train(["the cat sat on the mat"], 262).save("t.json")


def test_report(here, capsys):
    text = " ".join(f"the {w} sat on the mat" for w in ["cat", "dog", "hen", "cow", "ass"] * 40)
    Path("b.txt").write_text(text, "utf-8")
    flags = ["--vocab", "260", "256", "9999", "--tokenizer", "t.json", "--plot", "p/x.png"]
    assert report.main(["b.txt", *flags]) == 0
    out = capsys.readouterr().out
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in out.splitlines() if "|" in line]
    assert [r[0] for r in rows[2:]] == [
        "characters",
        "bytes",
        "bpe",
        "bpe",
        "unigram",
        "wordpiece (lossy)",
        "t.json",
    ]
    held = text[int(len(text) * 0.9) :]
    per_word = f"{len(held) / len(held.split()):.2f}"
    assert rows[3] == ["bytes", "256", f"{len(held):,}", "1.00", per_word, "100.0%"]
    full = BPETokenizer.train([text[: int(len(text) * 0.9)]], 9999, special_tokens=())
    assert rows[5][1] == str(full.vocab_size)  # no more than the text gives
    assert rows[5][2] == str(len(full.encode(held)))
    assert f"longest of bpe {full.vocab_size}: " in out
    png = Path("p/x.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert [p.name for p in Path("p").iterdir()] == ["x.png"]


def test_a_kind_that_does_not_fit_is_said(here, capsys):
    """WordPiece needs its five special tokens and the characters; unigram the bytes."""
    Path("b.txt").write_text("abcd efgh " * 50 + "é", "utf-8")
    report.main(["b.txt", "--vocab", "256", "--plot", "x.png"])
    out, err = capsys.readouterr()
    assert "wordpiece (lossy) | 25 |" in out
    assert "| unigram" in out or "note: no unigram: vocab_size=256 is smaller" in err


def test_models_read_the_text_as_wordpiece_keeps_it(here, capsys, monkeypatch):
    """Bits per byte by hand from the nats of each: only then do the kinds compare."""
    import math

    from utils.training.score import Score

    seen = {}

    def score(learnt, held, V, n_bytes, steps, seed):
        seen.setdefault(V, (n_bytes, len(held), steps))
        return 7, Score(100.0 * seed, len(held) - 1, n_bytes)

    assert report.plain("It's  A dog.\n") == "it ' s a dog ."
    monkeypatch.setattr(report, "trained_score", score)
    text = "".join(f"The {w} sat, on a Mat. " for w in ["cat", "dog", "hen"] * 40)
    Path("b.txt").write_text(text, "utf-8")
    report.main(["b.txt", "--vocab", "300", "--steps", "5", "--seed", "1", "3", "--plot", "x.png"])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "±" in line]
    assert [row[1].strip() for row in rows] == list(report.TRAINERS)
    plain = report.plain(text)
    n_bytes = len(plain[int(len(plain) * 0.9) :])
    assert {n for n, _, steps in seen.values()} == {n_bytes}
    assert {steps for _, _, steps in seen.values()} == {5}
    mean, sd = (x / math.log(2) / n_bytes for x in (200, 100 * math.sqrt(2)))
    assert {row[6].strip() for row in rows} == {f"{mean:.4f} ± {sd:.4f}"}


def test_bits_per_byte_are_refused_where_words_are_lost(here):
    Path("b.txt").write_text("the cat sat. " * 90 + "the xat sat. " * 10, "utf-8")
    with pytest.raises(ValueError, match=r"wordpiece: .* are \[UNK\].*would leave out"):
        report.main(["b.txt", "--vocab", "300", "--steps", "1", "--seed", "1", "--plot", "x.png"])


@pytest.mark.slow
def test_a_model_learns_with_every_kind():
    """More steps are better, and the seeds differ."""
    import re

    text = Path(__file__).parent.parent.joinpath("data", "tiny.txt").read_text("utf-8")
    few, more = (list(report.trained_rows(text, 400, steps, [1, 2])) for steps in (2, 40))
    for a, b in zip(few, more, strict=True):
        (x, spread), (y, _) = (re.search(r"([\d.]+) ± ([\d.]+)", row).groups() for row in (a, b))
        assert float(y) < float(x) - 0.2
        assert float(spread) > 0


def test_the_plot_has_every_row(here, monkeypatch):
    """Ours as one line, others as points; each with its figure."""
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **how: drawn.append((self, path)))
    rows = [
        report.Row("characters", 65, 0, 1.0, 0, 0, []),
        report.Row("bytes", 256, 0, 1.0, 0, 0, []),
        report.Row("bpe", 512, 0, 1.875, 0, 0, []),
    ]
    with pytest.raises(FileNotFoundError, match=r"'x\.png'"):  # nothing was written
        report.draw(rows, "title", "x.png")
    axes = drawn[0][0].axes[0]
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert lines == [([256, 512], [1.0, 1.875]), ([65], [1.0])]
    assert [text.get_text() for text in axes.texts] == ["characters\n1.00", "1.00", "1.88"]
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a.txt --vocab 255", "vocab=255 is smaller"),
        ("e.txt", "0 characters are too few"),
        ("a.txt --tokenizer none.json", "none.json: no such file"),
    ],
)
def test_report_mistakes(here, line, says):
    Path("e.txt").write_bytes(b"")
    with pytest.raises((ValueError, OSError)) as stop:
        report.main(line.split())
    assert says in cli.describe(stop.value)
    assert not Path("runs").exists()
