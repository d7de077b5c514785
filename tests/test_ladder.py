"""utils/ladder: each rung against figures worked out by hand, and against what it teaches."""

import gzip
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.ladder import __main__ as ladder
from utils.ladder import (
    attention,
    bag,
    bengio,
    bigram,
    block,
    compressors,
    corpus,
    counts,
    descent,
    gpt_numpy,
    gpt_torch,
    network,
    trigram,
)
from utils.ladder.corpus import Corpus, scored_windows, write

ROOT = Path(__file__).parent.parent
TINY = str(ROOT / "data" / "tiny.txt")


@pytest.fixture(scope="module")
def tiny():
    """The first 30,000 characters of data/tiny.txt, the last tenth held out."""
    text = Path(TINY).read_text(encoding="utf-8")[:30_000]
    return Corpus("tiny", text[:27_000], text[27_000:])


def numeric_grads(params, loss, eps=1e-6):
    """(L(p + eps) - L(p - eps)) / 2 eps, for every figure of every parameter."""
    grads = {name: np.zeros_like(p) for name, p in params.items()}
    for name, p in params.items():
        for i in np.ndindex(p.shape):
            kept = p[i]
            p[i] = kept + eps
            up = loss()
            p[i] = kept - eps
            grads[name][i] = (up - loss()) / (2 * eps)
            p[i] = kept
    return grads


# the text


def test_bits_per_byte_are_those_of_bytes_and_other_characters_are_spelt():
    """é is two bytes; Ω, new in the held-out text, costs log2(0x110000) bits more."""
    text = Corpus("x", "abé" * 400, "éaΩ")
    assert text.V == 4
    assert text.val.tolist() == [3, 1, 0]
    assert text.decode(text.val) == "éa\ufffd"
    nats = 3 * 2 * math.log(2)  # 3 ids of 2 bits; 5 bytes
    assert text.bits_per_byte(nats) == pytest.approx((6 + math.log2(0x110000)) / 5)
    assert text.bits_per_byte(nats, spelt=True) == pytest.approx(6 / 5)


def test_the_alphabet_is_of_the_training_text_and_of_255_at_most():
    many = "".join(chr(0x4E00 + i) * (1 + (i < 255)) for i in range(300))
    text = Corpus("x", many, many)
    assert text.V == 256
    assert np.count_nonzero(text.val == corpus.OTHER) == 45
    assert Corpus("x", "aab", "z").alphabet == "ab"


def test_the_split_is_that_of_data_text(tmp_path):
    from data.text import read_text, split_text

    text = corpus.read_corpus(TINY)
    train, val = ("".join(part) for part in split_text(read_text(TINY)))
    assert (text.train_text, text.val_text) == (train, val)
    assert text.name == "tiny.txt"
    short = tmp_path / "short.txt"
    short.write_text("too short", encoding="utf-8")
    with pytest.raises(ValueError, match="9 characters are too few"):
        corpus.read_corpus(str(short))


@pytest.mark.parametrize("T", [1, 2, 3, 8])
@pytest.mark.parametrize("N", [1, 2, 7, 8, 9, 25])
def test_windows_count_each_target_once_and_late(T, N):
    rows, count = scored_windows(np.arange(T + N), T)
    assert rows[:, 1:][count].tolist() == list(range(T, T + N))
    seen = count.argmax(1) + 1  # ids that the first target that counts is predicted from
    assert seen.min() >= T / 2


def test_write_draws_what_the_table_says():
    always = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert write(lambda ids: always[ids[-1]], np.array([0]), 5).tolist() == [1, 0, 1, 0, 1]


# counts


def test_counts_by_hand():
    assert counts.words_of("Oh, no\n") == ["Oh", ",", " ", "no", "\n"]
    assert counts.unigram(np.array([0, 1, 1]), 2) == pytest.approx([2 / 5, 3 / 5])


def test_words_by_hand():
    """Training "a b a b a b ": 6 words of letters, 6 spaces, W=3. "b" is known, "ab" is not."""
    text = Corpus("x", "a b " * 3, "b ab")
    N, W = 12, 3
    p = {"a": 4 / 16, "b": 4 / 16, " ": 7 / 16}  # (count + 1) / (12 + V), V = 4
    nats = -math.log(3 / (N + W)) - math.log(6 / (N + W))  # "b", " "
    nats += -math.log(W / (N + W)) - sum(math.log(p[c]) for c in "ab ")  # new, then its spelling
    assert counts.word_nats(text, counts.Counter(counts.words_of(text.train_text))) == (
        pytest.approx(nats)
    )
    *_, words = counts.climb(text)
    assert words.bits_per_byte == pytest.approx(nats / math.log(2) / 4)


# network


def test_network_gradients_are_finite_differences():
    params = network.init(5, seed=1)
    params["b1"] += 0.1
    x, y = np.eye(5)[[0, 3, 3, 1]], np.array([2, 0, 4, 4])
    _, grads = network.loss_and_grads(params, x, y)
    numeric = numeric_grads(params, lambda: network.loss_and_grads(params, x, y)[0])
    for name, g in grads.items():
        assert np.abs(g).max() > 1e-3, name
        np.testing.assert_allclose(g, numeric[name], atol=1e-8, err_msg=name)


def test_network_reaches_the_bigram_but_not_more(tiny):
    """It sees one character: on its training text, no network beats the counts of pairs."""
    *_, (_, params) = network.train(tiny, 600)
    p, _ = network.forward(params, np.eye(tiny.V))
    pairs = bigram.pair_counts(tiny.train, tiny.V) - 1
    best = pairs / np.maximum(pairs.sum(1, keepdims=True), 1)
    entropy = -(pairs * np.log(np.where(pairs > 0, best, 1))).sum() / pairs.sum()
    loss = -(pairs * np.log(p)).sum() / pairs.sum()
    assert entropy < loss < entropy + 0.1


# bigram


def test_bigram_counts_by_hand():
    assert bigram.pair_counts(np.array([0, 1, 0]), 2).tolist() == [[1, 2], [2, 1]]


def test_bigram_gradient_is_finite_differences():
    seen = bigram.pair_counts(np.array([0, 1, 2, 0, 1, 1]), 3)
    params = {"W": np.random.default_rng(0).normal(size=(3, 3))}
    numeric = numeric_grads(params, lambda: -(seen * np.log(network.softmax(params["W"]))).sum())
    np.testing.assert_allclose(bigram.gradient(params["W"], seen), numeric["W"], atol=1e-6)


def test_counting_and_gradient_descent_agree(tiny):
    """The two tables, their scores, and the text that they write."""
    by_count, by_descent = bigram.counted(tiny), bigram.descended(tiny)
    assert np.abs(bigram.descended(tiny, 10) - by_count).max() > 0.01  # it has to be learnt
    np.testing.assert_allclose(by_descent, by_count, atol=1e-4)
    assert bigram.score(tiny, by_descent) == pytest.approx(bigram.score(tiny, by_count), abs=2e-3)
    assert bigram.written(tiny, by_descent) == bigram.written(tiny, by_count)


# trigram


def test_trigram_shares_by_hand():
    """In 0 1 0 1 2: after "0 1" came 0 and 2. The context "2 2" is new: the bigram speaks, and so
    on down to 1/V."""
    found = trigram.tables(np.array([0, 1, 0, 1, 2]), 3, 3)
    rows = np.array([[0, 1, 2], [2, 2, 0], [2, 0, 1]])
    assert trigram.shares(found, rows) == pytest.approx(
        np.array([[1 / 3, 1 / 5, 1 / 2, 1 / 2], [1 / 3, 2 / 5, 2 / 5, 2 / 5], [1 / 3, 2 / 5, 1, 1]])
    )


def test_trigram_probabilities_sum_to_one(tiny):
    found, w = trigram.learn(tiny.train[:2000], tiny.V, 3)
    assert w.sum() == pytest.approx(1)
    assert (w > 0).all()
    for context in ([1, 2], [0, 0], tiny.train[5:7].tolist()):
        rows = np.array([[*context, c] for c in range(tiny.V)])
        assert (trigram.shares(found, rows) @ w).sum() == pytest.approx(1)


def test_trigram_weights_are_the_best_there_are():
    """EM's weights for two columns, beside a search over all: the same to a thousandth."""
    p = np.random.default_rng(0).uniform(0.01, 1, (3000, 2)) * [1, 0.9]
    w = trigram.fit_weights(p, rounds=500)
    grid = np.linspace(0, 1, 1001)
    best = max(grid, key=lambda a: np.log(p @ [a, 1 - a]).sum())
    assert w[0] == pytest.approx(best, abs=2e-3)


def test_trigram_weights_come_from_text_that_was_not_counted(tiny):
    """On the counted text itself the longest context would take nearly all the weight."""
    ids, order = tiny.train[:3000], 4
    _, w = trigram.learn(ids, tiny.V, order)
    seen = trigram.tables(ids, tiny.V, order)
    greedy = trigram.fit_weights(trigram.shares(seen, trigram.windows(ids, order)))
    assert greedy[-1] > 0.95 > w[-1]


def test_trigram_beats_the_bigram_that_is_in_it(tiny):
    three, six = trigram.climb(tiny)
    assert six.bits_per_byte < three.bits_per_byte
    assert three.bits_per_byte < bigram.score(tiny, bigram.counted(tiny))
    with pytest.raises(ValueError, match="order=40"):
        trigram.tables(tiny.train, tiny.V, 40)


# bengio


def test_bengio_gradients_are_finite_differences():
    params = {name: p.astype(np.float64) for name, p in bengio.init(4).items()}
    small = {
        "E": params["E"][:, :2], "W1": params["W1"][:6, :3], "W2": params["W2"][:3],
        "b1": params["b1"][:3] + 0.1, "b2": params["b2"],
    }  # fmt: skip
    idx, targets = np.array([[0, 2, 2], [3, 1, 0]]), np.array([[9, 9, 1], [9, 9, 3]])
    _, grads = bengio.loss_and_grads(small, idx, targets)
    numeric = numeric_grads(small, lambda: bengio.loss_and_grads(small, idx, targets)[0])
    for name, g in grads.items():
        assert np.abs(g).max() > 1e-3, name
        np.testing.assert_allclose(g, numeric[name], atol=1e-8, err_msg=name)


def test_bengio_learns_more_than_a_bigram(tiny):
    (result,) = bengio.climb(tiny, effort=0.1)
    assert result.bits_per_byte < bigram.score(tiny, bigram.counted(tiny)) - 0.3
    sizes = [tiny.V * 16, 8 * 16 * 128, 128, 128 * tiny.V, tiny.V]
    assert result.params == sum(sizes)


# attention


def test_attention_by_hand():
    """The second word's figures: scores 2/sqrt 3 and 0, so weights e^1.1547 to 1."""
    q, k, v = attention.project(attention.X)
    y, weights = attention.attend(q, k, v)
    e = math.exp(2 / math.sqrt(3))
    assert weights[1] == pytest.approx([e / (e + 1), 1 / (e + 1), 0])
    assert y[1] == pytest.approx([3 * e / (e + 1), 2 / (e + 1), 3 * e / (e + 1)])
    assert y[0] == pytest.approx(v[0])  # the first sees itself alone


def test_attention_is_the_models_own():
    q, k, v = np.random.default_rng(0).normal(size=(3, 5, 4))
    assert attention.difference(q, k, v) < 1e-12
    assert attention.difference(*attention.project(attention.X)) < 1e-12


# bag, block


def test_bag_gradients_are_finite_differences(monkeypatch):
    monkeypatch.setattr(bag, "C", 4)
    monkeypatch.setattr(bag, "HEADS", 2)
    params = {name: p.astype(np.float64) for name, p in bag.init(3, positions=True).items()}
    params["P"] = params["P"][:4]
    idx, targets = np.array([[0, 2, 2], [1, 1, 0]]), np.array([[2, 2, 1], [1, 0, 2]])
    _, grads = bag.loss_and_grads(params, idx, targets)
    numeric = numeric_grads(params, lambda: bag.loss_and_grads(params, idx, targets)[0])
    assert grads.keys() == params.keys()
    for name, g in grads.items():
        assert np.abs(g).max() > 1e-3, name
        np.testing.assert_allclose(g, numeric[name], atol=1e-8, err_msg=name)


def test_a_bag_does_not_feel_its_context_shuffled_and_positions_do(tiny):
    idx = tiny.val[:32]
    moved = []
    for positions in (False, True):
        params = bag.init(tiny.V, positions)
        moved.append(bag.moved({n: p.astype(np.float64) for n, p in params.items()}, idx))
    assert moved[0] < 1e-12
    assert moved[1] > 0.1


def test_order_is_worth_bits(tiny, monkeypatch):
    monkeypatch.setattr(bag, "BATCH", 16)
    alone, placed = bag.climb(tiny, effort=0.5)
    assert alone.bits_per_byte > placed.bits_per_byte + 0.1
    assert placed.params == alone.params + 32 * 64


def test_block_starts_as_the_identity_and_learns(tiny):
    c = block.config(tiny.V)
    params = block.init(c)
    sizes = block.sizes(params, c, tiny.val[None, :8])
    assert sizes["embedding"] == pytest.approx(1, abs=0.2)
    assert sizes["attn"] == sizes["mlp"] == 0
    assert sum(p.size for p in params.values()) == 2 * tiny.V * 64 + 12 * 64**2 + 3 * 64
    (result,) = block.climb(tiny, effort=0.15)
    assert result.bits_per_byte < 3.3
    assert result.params == sum(p.size for p in params.values())


def test_held_out_nats_are_those_of_the_logits():
    """Logits that favour the id that comes: each target costs the same, padding nothing."""
    ids = np.arange(20) % 3
    logits = np.log([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]])
    nats = descent.held_out_nats(lambda idx: logits[idx], ids, 4)
    assert nats == pytest.approx(-16 * math.log(0.8))


# the full model


def test_numpy_starts_with_every_parameter_that_torch_has(tiny):
    """So the rung's own start has no name too many and no shape wrong."""
    c = gpt_numpy.config(tiny.V)
    theirs = {n: tuple(t.shape) for n, t in gpt_torch.build(tiny.V).state_dict().items()}
    assert {n: p.shape for n, p in gpt_numpy.init(c).items()} == theirs


def test_the_same_weights_lose_the_same_in_numpy_and_in_torch(tiny):
    model = gpt_torch.build(tiny.V)
    for _ in gpt_torch.train(model, tiny.train, 3):
        pass
    by_torch, by_numpy = gpt_torch.same_loss(model, tiny)
    assert by_numpy == pytest.approx(by_torch, abs=1e-5)
    assert by_numpy < math.log(tiny.V)


def test_both_full_models_learn(tiny):
    (by_numpy,) = gpt_numpy.climb(tiny, effort=0.04)
    characters, pairs = gpt_torch.climb(tiny, effort=0.06)
    unigram = [r for r in counts.climb(tiny) if r.name.startswith("characters")]
    assert by_numpy.bits_per_byte < 3.5 < unigram[0].bits_per_byte
    assert characters.bits_per_byte < 3.3
    assert pairs.bits_per_byte < 2.5
    assert by_numpy.params == characters.params < pairs.params
    with pytest.raises(ValueError, match="byte pairs to learn from"):
        gpt_torch.learn(Corpus("x", "a" * 1000, "aa"), bpe_of_a(), 1)


def bpe_of_a():
    """A tokenizer that makes a thousand letters a handful of ids."""
    return gpt_torch.byte_pairs(Corpus("x", "a" * 1000, "a"))


# compressors


def test_compressors_are_charged_for_the_held_out_part_alone(tiny):
    train, val = tiny.train_text.encode(), tiny.val_text.encode()
    found = {result.name: result.bits_per_byte for result in compressors.climb(tiny)}
    more = len(gzip.compress(train + val, 9)) - len(gzip.compress(train, 9))
    assert found["gzip -9"] == pytest.approx(8 * more / len(val))
    assert found["gzip -9"] < 8 * len(gzip.compress(val, 9)) / len(val)  # the context helped
    assert {"bzip2 -9", "xz -9e"} < found.keys()


def test_zstd(tiny):
    if compressors.zstd() is None:
        pytest.skip(compressors.GET_ZSTD)
    assert 0.1 < {r.name: r.bits_per_byte for r in compressors.climb(tiny)}["zstd -19"] < 4


def test_without_zstd_a_line_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(compressors, "find_spec", lambda name: None)
    assert "zstd -19" not in compressors.compressors()
    compressors.main(["--data", TINY])
    assert "pip install zstandard" in capsys.readouterr().out


# the table and the picture


QUICK = ["counts", "bigram", "trigram", "compressors"]


def test_the_table_and_its_json(tmp_path, capsys):
    out, found = tmp_path / "runs" / "x.png", tmp_path / "x.json"
    flags = ["--data", TINY, "--effort", "0.01", "--out", str(out), "--json", str(found)]
    ladder.main([*flags, "--only", *QUICK])
    printed = capsys.readouterr().out
    assert out.read_bytes().startswith(b"\x89PNG")
    table = json.loads(found.read_text(encoding="utf-8"))
    assert table["text"] == "tiny.txt"
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in printed.splitlines()]
    rows = [row for row in rows if len(row) == 5][2:]
    assert len(rows) == len(table["rows"]) >= 10
    for cells, row in zip(rows, table["rows"], strict=True):
        assert cells[0] == row["name"]
        assert cells[2] == f"{row['params']:,}"
        assert cells[4] == f"{row['bits_per_byte']:.3f}"
    widths = {len(line) for line in printed.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_every_rung_is_in_the_ladder():
    """All that can be climbed: a file with climb() has its row."""
    files = {p.stem for p in (ROOT / "utils" / "ladder").glob("*.py")}
    climbs = {
        name
        for name in files - {"__main__"}
        if re.search(r"^def climb", (ROOT / f"utils/ladder/{name}.py").read_text("utf-8"), re.M)
    }
    assert climbs == set(ladder.RUNGS)


def test_the_picture_has_a_bar_a_row_and_the_best_compressor(monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1]
    )
    bars = [
        ("counting", corpus.Result("bigram", "the last", 9, 3.25)),
        ("attention", corpus.Result("GPT", "all", 9, 0.5)),
        ("compressor", corpus.Result("xz", "all", 0, 1.5)),
        ("compressor", corpus.Result("gzip", "32 KB", 0, 2.5)),
    ]
    ladder.draw(bars, "title", str(tmp_path / "x.png"))
    axes = drawn[0].axes[0]
    assert [bar.get_width() for bar in axes.patches] == [3.25, 0.5, 1.5, 2.5]
    texts = [text.get_text() for text in axes.texts]
    assert {"bigram", "sees the last", "3.25", "0.50"} <= set(texts)
    assert [line.get_xdata()[0] for line in axes.lines] == [1.5]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--only", "bigrams"], "unknown rung bigrams; did you mean bigram?"),
        (["--effort", "0"], "--effort 0 is not a positive number"),
        (["--effort", "nan"], "--effort nan is not a positive number"),
        (["--data", "none.txt"], "none.txt: No such file or directory"),
        (["--data", TINY, "--out", "."], "is a directory"),
        (["--steps", "3"], "unknown flag --steps"),
    ],
)
def test_mistakes_are_one_line(error_of, monkeypatch, flags, says):
    """And are found before a minute is spent."""
    monkeypatch.setattr(ladder, "climb", None)
    assert says in error_of(ladder.main, *flags)


def test_importing_a_rung_leaves_the_threads_alone():
    """The package set OMP_NUM_THREADS as it was imported, for all that its importer did later."""
    environ = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    code = "import os, utils.ladder.bigram; print(os.environ.get('OMP_NUM_THREADS'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True)
    assert done.stdout.split() == [b"None"]


@pytest.mark.parametrize("rung", [*ladder.RUNGS, "attention"])
def test_each_rung_runs_alone(rung, tmp_path):
    """`python -m utils.ladder.NAME`, on a text with letters of two bytes, in few steps."""
    text = Path(TINY).read_text(encoding="utf-8")[:12_000].replace("a", "ä")
    (tmp_path / "my.txt").write_text(text, encoding="utf-8")
    flags = [] if rung == "attention" else ["--data", str(tmp_path / "my.txt"), "--effort", "0.01"]
    done = subprocess.run(
        [sys.executable, "-m", f"utils.ladder.{rung}", *flags],
        cwd=ROOT, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = "differs by" if rung == "attention" else "bits per byte"
    assert expected in done.stdout
    assert done.stderr == ""
