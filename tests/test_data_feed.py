"""data/feed.py: which windows a step trains on."""

import csv
import math
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import TOY, make_text
from hypothesis import given
from hypothesis import strategies as st

import train
from data.feed import Feed, Phase, keys_of, permuted, phases_of, shuffled_start
from data.loader import batch_at
from data.sources import feed_of, open_sources, weights_of
from utils.checkpoint import TrainState, load_checkpoint
from utils.config import settings_from


def feed(*sources, T=4, B=3, accum=1, seed=5, phases=None, **more):
    phases = phases or [Phase(math.inf, T, (1,) * len(sources))]
    return Feed(list(sources), phases, T, B, accum, seed, **more)


def rows(fed, steps):
    """All first tokens of the windows of these steps, in order."""
    return [int(r[0]) for step in steps for x, _ in fed.batches(step) for r in x]


@given(st.integers(1, 400), st.integers(0, 9))
def test_permutation_has_each_place_once(n, seed):
    assert sorted(permuted(i, n, keys_of(seed)[:-1]) for i in range(n)) == list(range(n))


def test_permutation_against_an_inverse_written_apart():
    """Undo each round from the last, walking back: the place must come out again."""

    def mix(z):
        for shift, factor in (30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB):
            z = ((z ^ (z >> shift)) * factor) % 2**64
        return z ^ (z >> 31)

    def undone(i, n, keys):
        side = math.ceil(math.sqrt(n))
        while True:
            u, v = i // side, i % side
            for key in reversed(keys):
                u, v = (v - mix(key ^ u)) % side, u
            i = u * side + v
            if i < n:
                return i

    for n in 2, 7, 100, 12_345_678:
        keys = keys_of(n)[:-1]
        for i in random.Random(n).choices(range(n), k=50):
            assert undone(permuted(i, n, keys), n, keys) == i


def test_permutation_is_uniform_enough():
    """Where place i goes, over many epochs: chi-square of 20 x 20 counts beside its 361 +- 27."""
    n, m = 20, 4000
    counts = np.zeros((n, n))
    for epoch in range(m):
        keys = keys_of(3, epoch)[:-1]
        for i in range(n):
            counts[i, permuted(i, n, keys)] += 1
    assert abs(((counts - m / n) ** 2).sum() / (m / n) - 361) < 5 * math.sqrt(2 * 361)


def test_windows_of_an_epoch_by_hand():
    """14 tokens in windows of 4: (14 - 4) // 4 = 2 windows from an offset below 4."""
    offsets = set()
    for epoch in range(60):
        a, b = sorted(shuffled_start(2 * epoch + i, 14, 4, 1) for i in range(2))
        assert b == a + 4
        offsets.add(a)
    assert offsets == {0, 1, 2, 3}
    assert {shuffled_start(k, 5, 4, 1) for k in range(9)} == {0}  # one window fits
    assert {shuffled_start(k, 7, 4, 1) for k in range(60)} == {0, 1, 2}


@given(st.integers(2, 200), st.integers(1, 9))
def test_windows_stay_inside(n, T):
    if n > T:
        assert all(0 <= shuffled_start(k, n, T, 0) <= n - T - 1 for k in range(300))


def test_each_window_once_per_epoch_also_after_a_resume():
    """11 windows, 3 a batch: epochs end inside batches; a second Feed goes on in the middle."""
    tokens = np.arange(4 * 12, dtype=np.uint16)
    whole = rows(feed(tokens), range(22))
    assert whole == rows(feed(tokens), range(5)) + rows(feed(tokens), range(5, 22))
    epochs = [whole[i : i + 11] for i in range(0, 66, 11)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(min(epoch), min(epoch) + 44, 4))
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert len({min(epoch) for epoch in epochs}) > 1


def test_targets_are_one_place_on():
    x, y = feed(np.arange(100, dtype=np.uint16)).batches(2)[0]
    assert x.shape == y.shape == (3, 4)
    assert x.dtype == torch.int64
    assert torch.equal(y, x + 1)
    assert torch.equal(x - x[:, :1], torch.arange(4).expand(3, 4))


def test_random_is_nanogpts():
    tokens = np.arange(1000, dtype=np.uint32)
    got = feed(tokens, accum=2, sampling="random").batches(3)
    for i in 0, 1:
        want = batch_at(tokens, 6 + i, block_size=4, batch_size=3, seed=5)
        assert torch.equal(got[i][0], want[0])
        assert torch.equal(got[i][1], want[1])


@pytest.mark.parametrize("sampling", ["shuffle", "random"])
def test_ranks_together_are_one_process(sampling):
    a, b = np.arange(500, dtype=np.uint16), np.arange(1000, 1300, dtype=np.uint16)
    phases = [Phase(2, 2, (3, 1)), Phase(math.inf, 4, (1, 2))]
    same = {"phases": phases, "sampling": sampling}
    alone = feed(a, b, accum=6, **same)
    ranks = [feed(a, b, accum=2, rank=r, world=3, **same) for r in range(3)]
    for step in range(5):
        shares = [rank.batches(step) for rank in ranks]
        for i, (x, y) in enumerate(alone.batches(step)):
            assert torch.equal(shares[i % 3][i // 3][0], x)
            assert torch.equal(shares[i % 3][i // 3][1], y)


def test_a_mixture_keeps_its_weights_and_each_sources_epochs():
    """3 : 1 in every cycle of four rows; each source is covered once before it starts again."""
    a, b = np.arange(4 * 10, dtype=np.uint16), np.arange(1000, 1000 + 4 * 8, dtype=np.uint16)
    got = rows(feed(a, b, B=4, phases=[Phase(math.inf, 4, (3, 1))]), range(7))
    for i in range(0, 28, 4):
        assert sum(t >= 1000 for t in got[i : i + 4]) == 1
    assert len({t for t in got if t >= 1000}) == 7  # (32 - 4) // 4 windows, none twice
    assert len(set([t for t in got if t < 1000][:9])) == 9
    assert len({i % 4 for i, t in enumerate(got) if t >= 1000}) > 1  # not always the same place


def test_phases_change_the_source_and_the_context():
    """Two steps on the first source in windows of 2, then the second in windows of 4."""
    a, b = np.arange(100, dtype=np.uint16), np.arange(1000, 1100, dtype=np.uint16)
    fed = feed(a, b, phases=[Phase(2, 2, (1, 0)), Phase(math.inf, 4, (0, 1))])
    for step, shape in enumerate([(6, 2), (6, 2), (3, 4), (3, 4)]):
        x, _ = fed.batches(step)[0]
        assert x.shape == shape
        assert bool((x >= 1000).all()) == (step >= 2)
        again = feed(a, b, phases=fed.phases).batches(step)[0][0]  # as after a resume
        assert torch.equal(x, again)


def test_phases_are_read():
    names, more = ["tiny", "plays"], ((3, 1), 64)
    assert phases_of("", names, *more) == [Phase(math.inf, 64, (3, 1))]
    text = "until=100 block_size=16; until=200 tiny=1; tiny=1, plays=4"
    want = [Phase(100, 16, (3, 1)), Phase(200, 64, (1, 0)), Phase(math.inf, 64, (1, 4))]
    assert phases_of(text, names, *more) == want


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("until=0 tiny=1; tiny=1", "needs an until=STEP, rising"),
        ("block_size=16; tiny=1", "needs an until"),
        ("until=9; until=9 tiny=1;", "needs an until"),
        ("until=9", "needs an until"),
        ("block_size=48", "does not divide the run's 64"),
        ("block_size=0", "does not divide"),
        ("tinny=1", "no source 'tinny'; there is tiny, plays"),
        ("tiny=0", "weights sum to 0"),
        ("tiny=2000", "weights sum to 2000"),
        ("tiny=-1", "NAME=WHOLE_NUMBER"),
        ("tiny", "NAME=WHOLE_NUMBER"),
    ],
)
def test_bad_phases(text, said):
    with pytest.raises(ValueError, match=said):
        phases_of(text, ["tiny", "plays"], (3, 1), 64)


def test_a_source_that_is_too_short():
    with pytest.raises(ValueError, match="4 training tokens is too short for block_size=4"):
        feed(np.arange(9), np.arange(4))


def test_prefetch_gives_the_same_and_hands_on_errors():
    tokens = np.arange(500, dtype=np.uint16)
    ahead, plain = feed(tokens, accum=2, prefetch=True), feed(tokens, accum=2)
    for step in 0, 1, 2, 7, 8, 0, 0:
        pairs = zip(ahead.batches(step), plain.batches(step), strict=True)
        assert all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)

    def broken(step):
        raise OSError(f"step {step}: disk gone")

    ahead.draw = broken
    ahead.ahead.clear()
    with pytest.raises(OSError, match="step 1: disk gone"):
        ahead.batches(1)
    ahead.draw = plain.draw
    ahead.batches(1)
    ahead.ahead = {2: ahead.thread.submit(broken, 2)}  # dies in the thread
    with pytest.raises(OSError, match="step 2: disk gone"):
        ahead.batches(2)


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_resident_memory_does_not_grow_with_the_file(tmp_path):
    """240 MB read from end to end by random windows: with pages kept, 200 MB stay resident."""
    path = tmp_path / "train.bin"
    with open(path, "wb") as f:
        f.truncate(240_000_000)
    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    fed = feed(tokens, T=1024, B=64, sampling="random")
    fed.batches(0)
    before = resident()
    for step in range(1, 400):
        fed.batches(step)
    assert resident() - before < 30_000_000


MIX = ["--mixture", "one.txt=2 two.txt=1", "--accum", "2", "--eval_every", "2", "--dropout", "0.1"]
MIX += ["--phases", "until=3 block_size=8 one=1; one=2 two=1", *TOY]


@pytest.fixture
def two_texts(tmp_path):
    (tmp_path / "one.txt").write_text(make_text(), encoding="utf-8")
    (tmp_path / "two.txt").write_text(make_text()[::-1], encoding="utf-8")


def test_a_mixture_by_phase_resumes_to_the_bit(two_texts, monkeypatch):
    """Stopped at step 4, in the second phase and in the middle of an epoch of both sources.

    The one that is stopped and resumed draws ahead in a thread, as with a GPU.
    """
    assert train.main([*MIX, "--steps", "8", "--run", "whole"]) == 0
    drawn_here = []

    def ahead(*args, prefetch, **more):
        drawn_here.append(not prefetch)
        return feed_of(*args, **more, prefetch=True)

    monkeypatch.setattr(train, "feed_of", ahead)
    saved = TrainState.save

    def stop_at_4(state, path, *rest):
        saved(state, path, *rest)
        if state.step == 4 and path.name == "last.pt":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "save", stop_at_4)
        with pytest.raises(KeyboardInterrupt):
            train.main([*MIX, "--steps", "8", "--run", "cut"])
    assert load_checkpoint("runs/cut/last.pt")["step"] == 4
    assert train.main(["--run", "cut", "--resume"]) == 0
    assert drawn_here == [True, True]  # what train.py asks for on a CPU
    a, b = (load_checkpoint(Path("runs") / n / "last.pt") for n in ("whole", "cut"))
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
    assert a["step"] == b["step"] == 8
    with open("runs/cut/metrics.csv", encoding="utf-8", newline="") as f:
        scored = [r for r in csv.DictReader(f) if r["val_loss"]]
    assert [r["step"] for r in scored] == ["2", "4", "6", "8"]
    tokens = {n: s.meta["val_tokens"] - 1 for n, s in open_sources("", **shapes()).items()}
    for row in scored:  # the total weighs tokens
        nats = sum(float(row[f"val_loss_{n}"]) * k for n, k in tokens.items())
        assert float(row["val_loss"]) == pytest.approx(nats / sum(tokens.values()))


def shapes():
    return {"vocab": 280, "mixture": "one.txt=2 two.txt=1"}


def test_sources_share_a_tokenizer_and_keep_their_own_validation(two_texts):
    one, two = open_sources("", **shapes()).values()
    assert one.meta["tokenizer_sha256"] == two.meta["tokenizer_sha256"]
    assert make_text().endswith(one.tokenizer.decode(one.val))
    assert make_text()[::-1].endswith(two.tokenizer.decode(two.val))


def test_sources_prepared_apart_must_agree(two_texts):
    a = open_sources("one.txt", vocab=270)["one"].path
    b = open_sources("two.txt", vocab=280)["two"].path
    with pytest.raises(ValueError, match="have different tokenizers"):
        open_sources("", mixture=f"{a}=1 {b}=1")
    assert len(open_sources("", mixture=f"{a}=1 two.txt=1")) == 2  # the text takes a's tokenizer


def test_a_source_without_validation_is_refused_at_once(two_texts, error_of):
    """Its loss, 0 nats over 0 tokens, ended the run with a traceback at the first evaluation."""
    Path("two.txt").write_text("abcdefghij", encoding="utf-8")
    said = error_of(train.main, *MIX[:2], *TOY, "--block_size", "2")
    assert re.search(r"two\.txt: the validation text has 1 tokens; give a longer text", said)
    assert not Path("runs").exists()


def test_a_tokenizer_of_several_texts_is_whole_or_not_there(two_texts, monkeypatch):
    """Killed before it is put in its place, it is not taken for one; then it is made again."""

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            open_sources("", **shapes())
    assert not list(Path("cache").glob("tokenizer-*.json"))
    assert len(open_sources("", **shapes())) == 2
    assert len(list(Path("cache").glob("tokenizer-*.json"))) == 1


def test_twins_are_refused():
    with pytest.raises(ValueError, match="two sources of one name"):
        weights_of("", "a/x.txt=1 b/x.txt=1")


def test_mixtures_in_yaml_are_the_flags_text():
    text = """
    mixture: {one.txt: 3, two.txt: 1}
    phases:
      - {until: 100, block_size: 16}
      - {one: 1, two: 1}
    """
    data = settings_from(yaml.safe_load(text)).data
    assert data.mixture == "one.txt=3 two.txt=1"
    assert data.phases == "until=100 block_size=16; one=1 two=1"
