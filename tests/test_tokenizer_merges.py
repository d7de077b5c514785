"""Joining: two ways, one answer, in n log n; and what makes a list of merges sound."""

import random
import string
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tok import BPETokenizer
from tok.bpe.merges import LONG, MergeTable

letters = st.text("abc", max_size=40)
BYTES = {i: bytes([i]) for i in range(256)}


def one_at_a_time(table, word):
    """The definition, as tokenizers does it: the lowest rank, the leftmost position, again."""
    tokens = list(word)
    while True:
        found = [(table.rank[a + b], i) for i, (a, b) in enumerate(pairwise(tokens))]
        k, i = min(found, default=(1 << 60, 0))
        if k == 1 << 60:
            return "".join(tokens)
        tokens[i : i + 2] = [table.made[k]]


@st.composite
def merge_lists(draw):
    """Any valid list of merges, those that spell the same bytes included."""
    made, merges = [b"a", b"b", b"c"], []
    for _ in range(draw(st.integers(0, 12))):
        merge = draw(st.sampled_from(made)), draw(st.sampled_from(made))
        if merge not in merges:
            merges.append(merge)
            made.append(b"".join(merge))
    return merges


@given(merge_lists(), letters)
def test_both_ways_are_the_definition(merges, word):
    table = MergeTable(merges)
    want = one_at_a_time(table, word)
    assert table.join(word) == want
    assert table.join_long(word) == want


@given(merge_lists())
def test_sound_is_what_it_says(merges):
    table = MergeTable(merges)
    unique = len({a + b for a, b in merges}) == len(merges)
    plain = {(a + b).decode() for a, b in merges}
    alone = all(len(one_at_a_time(table, token)) == 1 for token in plain)
    assert table.sound <= (unique and alone)
    if unique and alone:  # then each is made by its own merge, or by parts joined otherwise
        last = [
            one_at_a_time(MergeTable(merges[:k]), (a + b).decode())
            for k, (a, b) in enumerate(merges)
        ]
        whole = [MergeTable(merges).char[a.decode()] + table.char[b.decode()] for a, b in merges]
        assert table.sound == (last == whole)


@given(st.lists(letters, max_size=5), st.integers(0, 30))
def test_training_is_sound(texts, n):
    """No edge inside a token ever came back: so no two merges spell the same bytes."""
    tok = BPETokenizer.train(texts, 256 + n, special_tokens=(), pattern="none")
    assert MergeTable(tok.merges).sound


def test_two_merges_that_spell_the_same_bytes_make_one_token():
    """(ab, c) and (a, bc) are both abc. minbpe gives two ids; here one, and both merges count."""
    merges = [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc")]
    vocab = BYTES | {256: b"ab", 257: b"bc", 258: b"abc"}
    tok = BPETokenizer(vocab, merges)
    assert tok.encode("abc") == [258]
    assert not MergeTable(merges).sound
    merges = [(b"b", b"c"), (b"a", b"b"), (b"ab", b"c"), (b"a", b"bc")]
    tok = BPETokenizer({**BYTES, 256: b"bc", 257: b"ab", 258: b"abc"}, merges)
    assert tok.encode("abc") == [258]
    with pytest.raises(ValueError, match="ids 258 and 259 are both b'abc'"):
        BPETokenizer({**vocab, 259: b"abc"}, merges)


def test_a_merge_that_spells_again_gives_way_to_an_earlier_one():
    """The first abc, made late by (a, bc), joins the next a before the second abc is made."""
    merges = [(b"b", b"c"), (b"a", b"b"), (b"ab", b"c"), (b"abc", b"a"), (b"a", b"bc")]
    table = MergeTable(merges)
    assert table.join("abcabc") == one_at_a_time(table, "abcabc")
    assert table.join("abcabc") == table.char["abca"] + table.char["bc"]


@pytest.mark.parametrize(
    ("merges", "says"),
    [
        ([(b"ab", b"c")], "merge 0 .* no earlier merge makes"),
        ([(b"a", b"b"), (b"a", b"b")], "merge 1 .* once more"),
    ],
)
def test_a_bad_list_of_merges_is_refused(merges, says):
    with pytest.raises(ValueError, match=says):
        MergeTable(merges)


@pytest.fixture(scope="module")
def runs():
    """A tokenizer that has merges for runs of one letter and for random ones."""
    rng = random.Random(0)
    noise = "".join(rng.choices(string.ascii_lowercase, k=3000))
    return BPETokenizer.train(["a" * 5000 + " " + "^" * 5000 + " " + noise], 500)


@pytest.mark.parametrize("kind", ["a", "^", "random", " ", "漢"])
def test_a_long_word_takes_n_log_n(runs, kind):
    """Ten times the length must not take a hundred times the time."""
    rng = random.Random(1)
    seconds = []
    for n in (10_000, 100_000):
        word = "".join(rng.choices(string.ascii_lowercase, k=n)) if kind == "random" else kind * n
        start = time.process_time()
        ids = runs.encode(word)
        seconds.append(time.process_time() - start)
        assert runs.decode(ids) == word
    assert seconds[1] < 40 * seconds[0] + 0.1


def test_both_ways_meet_at_the_border(runs):
    table = MergeTable(runs.merges)
    for n in (LONG - 1, LONG, LONG + 1, 3 * LONG):
        for word in ("a" * n, "^" * n, "xyzzy" * n):
            assert table.join(word) == table.join_long(word)
