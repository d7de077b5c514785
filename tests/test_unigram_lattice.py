"""The ways through a lattice against all of them, listed: the best, the n best, the drawn."""

from collections import Counter
from math import exp, inf, isclose
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tok import UnigramTokenizer
from tok.unigram.lattice import PENALTY, Edge, Pieces, log_sums, n_best, sample
from tok.unigram.trie import trie

SCORES = st.floats(-20, -0.1)
VOCAB = st.dictionaries(st.text("abé", min_size=1, max_size=4), SCORES, min_size=1, max_size=12)
WORD = st.text("abéc", max_size=8)


def spell(char):
    """Ids that no piece has."""
    return tuple(1000 + b for b in char.encode())


def pieces_of(vocab):
    return Pieces({t: Edge(s, (i,)) for i, (t, s) in enumerate(vocab.items())}, spell)


def all_ways(vocab, word):
    """Every way, as (ids, score), by the definition. A character that is no piece is spelt."""
    if not word:
        return [((), 0.0)]
    index = {t: i for i, t in enumerate(vocab)}
    unknown = min(vocab.values()) - PENALTY
    found = []
    for end in range(1, len(word) + 1):
        head = word[:end]
        if head in vocab:
            edge = (index[head],), vocab[head]
        elif end == 1:
            edge = spell(head), unknown
        else:
            continue
        found += [(edge[0] + ids, edge[1] + s) for ids, s in all_ways(vocab, word[end:])]
    return found


@given(vocab=VOCAB, word=WORD)
def test_the_best_way_is_the_best_of_all(vocab, word):
    ids, score = pieces_of(vocab).best(word)
    ways = dict(all_ways(vocab, word))
    assert isclose(score, max(ways.values()), abs_tol=1e-9)
    assert isclose(ways[ids], score, abs_tol=1e-9)


@settings(max_examples=60)
@given(vocab=VOCAB, word=WORD, n=st.integers(1, 30))
def test_the_n_best_are_the_n_best_of_all(vocab, word, n):
    lattice = pieces_of(vocab).lattice([word])
    found, ways = n_best(lattice, n), dict(all_ways(vocab, word))
    want = sorted(ways.values(), reverse=True)[:n]
    assert [s for _, s in found] == pytest.approx(want, abs=1e-9)
    assert all(isclose(ways[ids], s, abs_tol=1e-9) for ids, s in found)
    assert len({ids for ids, _ in found}) == len(found) == min(n, len(ways))
    assert found[0] == pieces_of(vocab).best(word)  # ties too


def test_of_equal_ways_the_longest_last_piece_is_taken():
    """a|aa, aa|a and their like have the same sum: SentencePiece and tokenizers take a|aa."""
    pieces = pieces_of({"a": -1.0, "aa": -1.5})
    assert pieces.best("aaa") == ((0, 1), -2.5)
    assert [ids for ids, _ in n_best(pieces.lattice(["aaa"]), 9)] == [(0, 1), (1, 0), (0, 0, 0)]


def test_no_piece_crosses_from_word_to_word():
    tok = UnigramTokenizer.from_pieces({"a": -3.0, " ": -3.0, "a a": -1.0, " a": -2.0})
    (first, score), *_ = tok.n_best("a a", 50)
    assert (tok.decode(first[:1]), score) == ("a", -5.0)
    assert len(tok.n_best("a a", 50)) == 2


@given(vocab=VOCAB, word=WORD, alpha=st.sampled_from([0.0, 0.5, 1.0]))
def test_the_sum_over_all_ways(vocab, word, alpha):
    sums = log_sums(pieces_of(vocab).lattice([word]), alpha)
    assert isclose(
        exp(sums[-1]), sum(exp(alpha * s) for _, s in all_ways(vocab, word)), rel_tol=1e-9
    )


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_drawn_ways_are_as_frequent_as_they_are_probable(alpha):
    """Pearson's chi-squared of 4,000 draws against the exact posterior: below its 99.9 % point."""
    vocab = {"a": -2.0, "b": -1.0, "ab": -2.2, "ba": -4.0, "aba": -3.0, "bab": -5.0}
    ways = dict(all_ways(vocab, "abab"))
    total = sum(exp(alpha * s) for s in ways.values())
    lattice, random = pieces_of(vocab).lattice(["abab"]), Random(7)
    drawn = Counter(sample(lattice, alpha, random) for _ in range(4000))
    want = {ids: 4000 * exp(alpha * s) / total for ids, s in ways.items()}
    assert drawn.keys() <= want.keys()
    chi = sum((drawn[ids] - n) ** 2 / n for ids, n in want.items())
    assert len(ways) == 7
    assert chi < 22.46  # 6 degrees of freedom


def test_a_seed_gives_the_same_draw_and_words_are_drawn_apart():
    vocab = {"a": -1.0, " ": -1.0, "aa": -1.2, " a": -1.5}
    tok = UnigramTokenizer.from_pieces(vocab)
    draws = [tok.sample("aa aa aa", alpha=0.5, seed=s) for s in range(30)]
    assert draws == [tok.sample("aa aa aa", alpha=0.5, seed=s) for s in range(30)]
    assert len(set(map(tuple, draws))) > 10
    assert tok.sample("aa aa aa", alpha=200.0, seed=0) == tok.encode("aa aa aa")


def test_a_trie_holds_beginnings_without_a_value():
    root = trie({"abc": 2, "a": 1, "ab": 0})
    below, value = root["a"]
    assert (value, below["b"][1], below["b"][0]["c"]) == (1, 0, ({}, 2))
    assert trie({"abc": 1})["a"][1] is None


def test_long_words_do_not_overflow():
    pieces = pieces_of({"a": -700.0, "b": -1.0})
    ids, score = pieces.best("a" * 3000)
    assert len(ids) == 3000
    assert score == -2_100_000 > -inf
