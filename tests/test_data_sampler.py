"""data/sampler.py and data/phases.py: which windows a step trains on."""

import hashlib
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.loader import batch_at
from data.permutation import keys_of, permuted, scramble
from data.phases import Phase, parse_phases
from data.sampler import BatchSampler, shuffled_start


def sampler(*sources, T=4, B=3, accum=1, seed=5, phases=None, **more):
    phases = phases or [Phase(math.inf, T, (1,) * len(sources))]
    return BatchSampler(sources, phases, block_size=T, batch_size=B, accum=accum, seed=seed, **more)


def rows(made, steps):
    """All first tokens of the windows of these steps, in order."""
    return [int(r[0]) for step in steps for x, _ in made.batches(step) for r in x]


RECORDED = {  # from the code of 0.1.0 and after, before it was written anew
    ("shuffle", "one"): "e62395a51d2caf24",
    ("shuffle", "far"): "5bc3a8d8b9636dc4",
    ("shuffle", "tiny"): "e0f2c6eb49382a01",
    ("shuffle", "mixture"): "b122062baaf7cf16",
    ("shuffle", "phases"): "0442133d80fadeb2",
    ("shuffle", "phases of rank 0"): "49ddbffe09ed34b7",
    ("shuffle", "phases of rank 1"): "177d16a8c328f5c0",
    ("shuffle", "phases of rank 2"): "aa874c774b479d9f",
    ("random", "one"): "28dd4e5276a93a46",
    ("random", "far"): "2c6386c17ba39b8d",
    ("random", "tiny"): "91f925af34475554",
    ("random", "mixture"): "e1f1c8c38e27359d",
    ("random", "phases"): "f9fc3d466bb5eb88",
    ("random", "phases of rank 0"): "9d40c3003b9eb9c4",
    ("random", "phases of rank 1"): "5044008d82ffb2f7",
    ("random", "phases of rank 2"): "f55dab4cff5b362d",
}
TEXTS = [
    (np.arange(5000) * 7919 % 60013).astype(np.uint16),
    (np.arange(3001) * 104729 % 65521).astype(np.uint32),
    np.arange(40, dtype=np.uint16),
]
PHASES = [Phase(3, 4, (1, 0, 2)), Phase(9, 8, (2, 1, 1)), Phase(math.inf, 16, (3, 2, 1))]


def recorded(case, sampling):
    """The batches of a case that RECORDED has a hash of."""
    a, b, c = TEXTS
    one, two = [Phase(math.inf, 8, (1,))], [Phase(math.inf, 8, (3, 1))]
    kinds = {
        "one": (([a], one, 8, 5, 1, 1), range(300)),
        "far": (([a], one, 8, 5, 3, 7), [10**6, 10**9]),
        "tiny": (([c], [Phase(math.inf, 32, (1,))], 32, 4, 2, 0), range(40)),
        "mixture": (([a, b], two, 8, 5, 2, 3), range(60)),
        "phases": (([a, b, c], PHASES, 16, 3, 2, 1337), range(20)),
    }
    kind, _, rank = case.partition(" of rank ")
    (texts, phases, T, B, accum, seed), steps = kinds[kind]
    more = {"rank": int(rank), "world_size": 3} if rank else {}
    made = sampler(
        *texts, phases=phases, T=T, B=B, accum=accum, seed=seed, sampling=sampling, **more
    )
    return [batch for step in steps for batch in made.batches(step)]


@pytest.mark.parametrize(("sampling", "case"), RECORDED)
def test_windows_are_those_of_old_runs(sampling, case):
    """An old run that is resumed trains on the windows that it would have trained on."""
    digest = hashlib.sha256()
    for x, y in recorded(case, sampling):
        digest.update(str(tuple(x.shape)).encode() + x.numpy().tobytes() + y.numpy().tobytes())
    assert digest.hexdigest()[:16] == RECORDED[sampling, case]


def test_a_permutation_by_hand():
    """The example of `permuted`: the number for 2 is 4 modulo 3, that for 0, 1 does not matter."""
    key = next(k for k in range(99) if scramble(k ^ 2) % 3 == 4 % 3)
    assert permuted(5, 9, [key]) == 8
    assert permuted(5, 7, [key]) == 6
    assert [permuted(i, 9, keys_of(5)[:-1]) for i in range(9)] == [6, 3, 0, 1, 8, 7, 5, 2, 4]


@given(st.integers(1, 400), st.integers(0, 9))
def test_permutation_has_each_index_once(n, seed):
    assert sorted(permuted(i, n, keys_of(seed)[:-1]) for i in range(n)) == list(range(n))


def test_permutation_against_an_inverse_written_apart():
    """Undo each round from the last, walking back: the index must come out again."""

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
    """Where index i goes, over many epochs: chi-square of 20 x 20 counts beside its 361 +- 27."""
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
    """11 windows, 3 a batch: epochs end inside batches; a second sampler goes on in the middle."""
    tokens = np.arange(4 * 12, dtype=np.uint16)
    whole = rows(sampler(tokens), range(22))
    assert whole == rows(sampler(tokens), range(5)) + rows(sampler(tokens), range(5, 22))
    epochs = [whole[i : i + 11] for i in range(0, 66, 11)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(min(epoch), min(epoch) + 44, 4))
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert len({min(epoch) for epoch in epochs}) > 1


def test_targets_are_one_position_on():
    x, y = sampler(np.arange(100, dtype=np.uint16)).batches(2)[0]
    assert x.shape == y.shape == (3, 4)
    assert x.dtype == torch.int64
    assert torch.equal(y, x + 1)
    assert torch.equal(x - x[:, :1], torch.arange(4).expand(3, 4))


def test_random_is_nanogpts():
    tokens = np.arange(1000, dtype=np.uint32)
    got = sampler(tokens, accum=2, sampling="random").batches(3)
    for i in 0, 1:
        want = batch_at(tokens, 6 + i, block_size=4, batch_size=3, seed=5)
        assert torch.equal(got[i][0], want[0])
        assert torch.equal(got[i][1], want[1])


@pytest.mark.parametrize("sampling", ["shuffle", "random"])
def test_ranks_together_are_one_process(sampling):
    a, b = np.arange(500, dtype=np.uint16), np.arange(1000, 1300, dtype=np.uint16)
    phases = [Phase(2, 2, (3, 1)), Phase(math.inf, 4, (1, 2))]
    same = {"phases": phases, "sampling": sampling}
    alone = sampler(a, b, accum=6, **same)
    ranks = [sampler(a, b, accum=2, rank=r, world_size=3, **same) for r in range(3)]
    for step in range(5):
        shares = [rank.batches(step) for rank in ranks]
        for i, (x, y) in enumerate(alone.batches(step)):
            assert torch.equal(shares[i % 3][i // 3][0], x)
            assert torch.equal(shares[i % 3][i // 3][1], y)


def test_a_mixture_keeps_its_weights_and_each_sources_epochs():
    """3 : 1 in every cycle of four rows; each source is covered once before it starts again."""
    a, b = np.arange(4 * 10, dtype=np.uint16), np.arange(1000, 1000 + 4 * 8, dtype=np.uint16)
    got = rows(sampler(a, b, B=4, phases=[Phase(math.inf, 4, (3, 1))]), range(7))
    for i in range(0, 28, 4):
        assert sum(t >= 1000 for t in got[i : i + 4]) == 1
    assert len({t for t in got if t >= 1000}) == 7  # (32 - 4) // 4 windows, none twice
    assert len(set([t for t in got if t < 1000][:9])) == 9
    assert len({i % 4 for i, t in enumerate(got) if t >= 1000}) > 1  # not always at the same index


def test_phases_change_the_source_and_the_context():
    """Two steps on the first source in windows of 2, then the second in windows of 4."""
    a, b = np.arange(100, dtype=np.uint16), np.arange(1000, 1100, dtype=np.uint16)
    made = sampler(a, b, phases=[Phase(2, 2, (1, 0)), Phase(math.inf, 4, (0, 1))])
    for step, shape in enumerate([(6, 2), (6, 2), (3, 4), (3, 4)]):
        x, _ = made.batches(step)[0]
        assert x.shape == shape
        assert bool((x >= 1000).all()) == (step >= 2)
        again = sampler(a, b, phases=made.phases).batches(step)[0][0]  # as after a resume
        assert torch.equal(x, again)


def test_phases_are_read():
    names, more = ["tiny", "plays"], ((3, 1), 64)
    assert parse_phases("", names, *more) == [Phase(math.inf, 64, (3, 1))]
    text = "until=100 block_size=16; until=200 tiny=1; tiny=1, plays=4"
    want = [Phase(100, 16, (3, 1)), Phase(200, 64, (1, 0)), Phase(math.inf, 64, (1, 4))]
    assert parse_phases(text, names, *more) == want


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
        parse_phases(text, ["tiny", "plays"], (3, 1), 64)


def test_a_text_that_is_too_short():
    said = r"4 tokens, too short for block_size=4; give more text or --block_size 3 or less"
    with pytest.raises(ValueError, match=said):
        sampler(np.arange(9), np.arange(4))
    x, _ = sampler(np.arange(5)).batches(0)[0]
    assert x.tolist() == [[0, 1, 2, 3]] * 3


def test_prefetch_gives_the_same_and_hands_on_errors():
    tokens = np.arange(500, dtype=np.uint16)
    ahead, plain = sampler(tokens, accum=2, prefetch=True), sampler(tokens, accum=2)
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_batches_are_the_same():
    tokens = np.arange(500, dtype=np.uint16)
    plain, pinned = sampler(tokens), sampler(tokens, pin_memory=True, prefetch=True)
    for step in 0, 1:
        (x, y), (u, v) = plain.batches(step)[0], pinned.batches(step)[0]
        assert torch.equal(x, u)
        assert torch.equal(y, v)
        assert u.is_pinned()
        assert v.is_pinned()


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
    made = sampler(tokens, T=1024, B=64, sampling="random")
    made.batches(0)
    before = resident()
    for step in range(1, 400):
        made.batches(step)
    assert resident() - before < 30_000_000
