"""Learning and joining against a short, slow reference that is right at sight."""

import random
from collections import Counter
from itertools import pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from tok import BPETokenizer

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def slow_join(word, pair):
    """Join a pair in a tuple of byte strings, from the left."""
    out = []
    while word:
        n = 2 if word[:2] == pair else 1
        out.append(b"".join(word[:n]))
        word = word[n:]
    return tuple(out)


def slow_train(texts, n, specials=()):
    """The definition: count all pairs of neighbours, join the first by (count, bytes), repeat."""
    words = Counter()
    for text in texts:
        for s in sorted(specials, key=len, reverse=True):
            text = text.replace(s, "\0\1\2")
        for part in text.split("\0\1\2"):
            words.update(tuple(bytes([b]) for b in w.encode()) for w in regex.findall(GPT2, part))
    merges = []
    while len(merges) < n:
        pairs = Counter()
        for word, k in words.items():
            for pair in pairwise(word):
                pairs[pair] += k
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        words = {slow_join(w, best): 0 for w in words} | sum_words(words, best)
    return merges


def sum_words(words, best):
    out = Counter()
    for w, k in words.items():
        out[slow_join(w, best)] += k
    return dict(out)


def slow_encode(tok, text):
    """Each merge in turn over each word."""
    ids = {b: i for i, b in tok.vocab.items()}
    out = []
    for w in regex.findall(GPT2, text):
        word = tuple(bytes([b]) for b in w.encode())
        for pair in tok.merges:
            word = slow_join(word, pair)
        out += [ids[t] for t in word]
    return out


few = st.text(st.sampled_from("aab '.\n\té漢🙂1"), max_size=60)


def test_three_merges_by_hand():
    """low x3, lower, newest x2: (w, e) 3 = (l, o) 4 ... counted on paper."""
    tok = BPETokenizer.train(["low low low lower newest newest"], 256 + 4, special_tokens=())
    assert tok.merges == [(b"o", b"w"), (b"l", b"ow"), (b" ", b"low"), (b"w", b"e")]


@given(st.lists(few, max_size=4), st.integers(0, 30))
def test_training_is_the_reference_merge_for_merge(texts, n):
    got = BPETokenizer.train(texts, 256 + n, special_tokens=()).merges
    assert got == slow_train(texts, n)


@given(few, few, st.integers(0, 30))
def test_encoding_is_the_reference(train, text, n):
    tok = BPETokenizer.train([train], 256 + n, special_tokens=())
    assert tok.encode(text) == slow_encode(tok, text)
    assert tok.decode(tok.encode(text)) == text


def test_a_longer_text_with_special_tokens():
    rng = random.Random(0)
    words = [
        "the",
        "cat",
        "café",
        "naïve",
        "aaaa",
        "aaaaa",
        "2024",
        "don't",
        "<|a|>",
        "<|a|>b|>",
        "\n",
    ]
    text = " ".join(rng.choice(words) for _ in range(2000))
    specials = ["<|a|>", "<|a|>b|>"]
    tok = BPETokenizer.train([text], 256 + 2 + 80, special_tokens=specials)
    assert tok.merges == slow_train([text], 80, specials)
    assert not any(b"|" in a + b for a, b in tok.merges)
    plain = text.replace("<|a|>b|>", "").replace("<|a|>", "")
    assert tok.encode(plain) == slow_encode(tok, plain)


@pytest.mark.parametrize("text", ["", "a", "a" * 1000, "ab" * 500, " " * 50, "\n\n x \n"])
@settings(max_examples=5)
@given(n=st.integers(0, 12))
def test_edges(text, n):
    tok = BPETokenizer.train([text], 256 + n, special_tokens=())
    assert tok.merges == slow_train([text], n)
    assert tok.decode(tok.encode(text)) == text
