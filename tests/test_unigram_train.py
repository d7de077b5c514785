"""Learning pieces: each part against its definition, and what EM promises."""

import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from math import exp, inf, isclose, lgamma, log
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tok import UnigramTokenizer
from tok.unigram.seeds import substrings
from tok.unigram.train import LONG, RARE, Trainer, digamma, learn, seed

ROOT = Path(__file__).parents[1]
WORDS = st.dictionaries(st.text("ab c", min_size=1, max_size=9), st.integers(1, 5), min_size=1)
SENTENCES = "the cat sat on the mat; the other cats sang at the moat and that chatter. "
TEXT = "".join(SENTENCES[i % 7 : 70 - i % 11] for i in range(60))


@pytest.mark.parametrize(
    ("x", "value"),  # Euler's constant g: psi(1) = -g, psi(1/2) = -g - 2 log 2, psi(2) = 1 - g
    [
        (1, -0.5772156649015329),
        (0.5, -1.9635100260214235),
        (2, 0.42278433509846713),
        (0.25, -4.227453533376265),
        (10, 2.251752589066721),
        (100, 4.600161852738087),
        (1e9, 20.72326583644641),
    ],
)
def test_digamma_at_known_values(x, value):
    assert isclose(digamma(x), value, rel_tol=1e-12)


@given(x=st.floats(0.01, 1e6))
def test_digamma_is_the_slope_of_log_gamma(x):
    assert isclose(digamma(x + 1), digamma(x) + 1 / x, rel_tol=1e-9, abs_tol=1e-9)
    h = x * 1e-4
    assert isclose(
        digamma(x), (lgamma(x + h) - lgamma(x - h)) / (2 * h), rel_tol=1e-5, abs_tol=1e-4
    )


def counted(words, longest):
    """The definition: all substrings of all words; those that repeat, and are not always the
    beginning of the same longer one (which must be short enough to be counted)."""
    count = Counter()
    for word, n in words.items():
        for i in range(len(word)):
            for j in range(i + 2, min(len(word), i + longest) + 1):
                count[word[i:j]] += n
    more = {s[:-1] for s, n in count.items() if count.get(s[:-1]) == n}
    return {s: n for s, n in count.items() if n > 1 and s not in more}


@settings(max_examples=40)
@given(words=WORDS, longest=st.sampled_from([2, 3, 16]))
def test_seeds_are_the_substrings_that_repeat(words, longest):
    assert substrings(words.items(), longest) == counted(words, longest)


def test_seeds_by_hand():
    assert substrings([("banana", 1)]) == {"na": 2, "ana": 2}
    found = seed({"banana": 2, "ba": 1}, 3)
    assert list(found.items())[:3] == [("a", 7), ("b", 3), ("n", 4)]
    assert set(found) - {"a", "b", "n"} == {"banana", "anana", "ana"}  # 12, 10, 12 characters


def ways(word, scores):
    """Every way of a word in known pieces, as lists."""
    if not word:
        return [[]]
    heads = [word[:n] for n in range(1, len(word) + 1) if scores.get(word[:n], -inf) > -inf]
    return [[head, *rest] for head in heads for rest in ways(word[len(head) :], scores)]


@settings(max_examples=40)
@given(words=WORDS)
def test_expected_counts_are_those_of_all_ways(words):
    trainer = Trainer(words, 50)
    total, count = trainer.expect()
    scores = dict(zip(trainer.texts, trainer.scores, strict=True))
    want, likelihood = Counter(), 0.0
    for word, n in words.items():
        every = [(way, exp(sum(map(scores.__getitem__, way)))) for way in ways(word, scores)]
        z = sum(p for _, p in every)
        likelihood += n * log(z)
        for way, p in every:
            for piece in way:
                want[piece] += n * p / z
    assert isclose(total, likelihood, rel_tol=1e-9, abs_tol=1e-9)
    assert count == pytest.approx([want[t] for t in trainer.texts], rel=1e-9, abs=1e-12)


def test_the_likelihood_never_falls():
    """Plain EM, no piece dropped: each step is at least as good as the last (Dempster et al.)."""
    trainer = Trainer(Counter(TEXT.split(" ")), 200)
    last = -inf
    for _ in range(12):
        total, count = trainer.expect()
        assert total >= last - 1e-9 * abs(total)
        last, whole = total, sum(count)
        trainer.scores = [log(n / whole) if n else -inf for n in count]
    first = Trainer(Counter(TEXT.split(" ")), 200)
    first.maximise(first.expect()[1], sparse=False, least=9999)  # ours, with rare pieces kept
    assert first.expect()[0] < last


def test_with_digamma_the_bound_of_variational_bayes_never_falls():
    """log Z - KL(Dirichlet(c) || prior), up to a constant, where p = exp(psi(c) - psi(sum of c)).

    c is the expected counts and the prior's own, here RARE; training takes the limit 0. The
    likelihood itself may fall: the step makes another thing greater (Beal 2003, section 2.2).
    """
    trainer = Trainer(Counter(TEXT.split(" ")), 200)
    count, bounds = trainer.expect()[1], []
    for _ in range(12):
        count = [n + RARE for n in count]
        trainer.maximise(count)
        total, following = trainer.expect()
        mean = sum((n - RARE) * s for n, s in zip(count, trainer.scores, strict=True))
        bounds.append(total + sum(map(lgamma, count)) - lgamma(sum(count)) - mean)
        count = following
    assert bounds[-1] > bounds[0] + 1
    assert all(b >= a - 1e-9 * abs(a) for a, b in pairwise(bounds))


@settings(max_examples=40)
@given(words=WORDS)
def test_rare_pieces_go_and_single_characters_stay(words):
    trainer = Trainer(words, 50)
    _, count = trainer.expect()
    trainer.maximise(count)
    for text, n, score in zip(trainer.texts, count, trainer.scores, strict=True):
        assert (score == -inf) == (n < RARE and len(text) > 1)
    trainer.drop({k for k, s in enumerate(trainer.scores) if s == -inf})
    trainer.prune(len(trainer.texts) // 2)
    assert set(trainer.texts) >= set("".join(words))
    assert trainer.expect()[0] > -inf


def test_the_loss_of_a_piece_by_hand():
    """ "ab" is used 6 times in all; without it a and b stand in its place."""
    trainer = Trainer({"ab": 6, "a": 2, "b": 2}, 10)
    trainer.scores = [{"a": -2.0, "b": -2.0, "ab": -1.0}[t] for t in trainer.texts]
    total = 10
    want = 6 * (log(6 / total) - 2 * log((2 + 6) / (total + 6)))
    assert trainer.losses() == {trainer.texts.index("ab"): pytest.approx(want)}
    trainer.scores = [{"a": -0.2, "b": -0.2, "ab": -1.0}[t] for t in trainer.texts]
    assert trainer.losses() == {}  # a and b say it better


def test_the_size_is_exact_and_the_characters_are_there():
    words = Counter(TEXT.split(" "))
    for size in (20, 33, 60):
        found = learn(words, size)
        assert len(found) == size
        assert set(found) >= set("".join(words))
        assert list(found.values()) == sorted(found.values(), reverse=True)
    least = len(set("".join(words)))
    assert set(learn(words, least)) == set("".join(words))
    assert len(learn({"ab": 3}, 50)) == 3  # a, b, ab: no more to be had


def test_more_pieces_need_fewer_tokens():
    sizes = [len(UnigramTokenizer.train([TEXT], n).encode(TEXT)) for n in (262, 275, 300)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < 0.9 * len(TEXT)


def test_words_of_any_length():
    word = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))  # no character twice
    for words in ({word: 1}, {"a" * 5000: 3}, {word * 2: 10**12}):
        trainer = Trainer(words, 100)
        total, count = trainer.expect()
        assert -inf < total < 0
        assert sum(n * k for n, k in zip(count, trainer.lengths, strict=True)) == pytest.approx(
            sum(len(w) * n for w, n in words.items())
        )
        assert max(map(len, trainer.words)) <= LONG


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_and_chunks_change_nothing(monkeypatch, workers):
    monkeypatch.setattr("tok.common.BLOCK", 300)
    want = UnigramTokenizer.train([TEXT], 300)
    found = UnigramTokenizer.train([[TEXT[:777], TEXT[777:]]], 300, workers=workers)
    assert found.scores == want.scores
    assert found.vocab == want.vocab


def test_the_hash_seed_changes_nothing():
    code = (
        f"from tok import UnigramTokenizer; print(UnigramTokenizer.train([{TEXT!r}], 300).scores)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": s, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for s in "12"
    ]
    assert said[0] == said[1]
    assert len(said[0]) > 1000


def test_steps_rise_to_the_size():
    done = []
    learn(Counter(TEXT.split(" ")), 40, done.append)
    assert done == sorted(done)
    assert done[-1] == 40
