"""Learning and joining against the thirty lines of docs/tokenizers.md, right at sight."""

import random
import re
from pathlib import Path

import pytest
import regex
from conftest import make_text
from hypothesis import given, settings
from hypothesis import strategies as st

from tok import BPETokenizer

BLOCK = re.search(
    r"^## BPE in thirty lines.*?```python\n(.*?)```",
    (Path(__file__).parent.parent / "docs" / "tokenizers.md").read_text(encoding="utf-8"),
    re.M | re.S,
)[1]
PAGE = {}
exec(BLOCK, PAGE)  # join and train, as docs/tokenizers.md has them
GPT2, slow_join = PAGE["GPT2"], PAGE["join"]


def slow_train(texts, n, specials=()):
    """The page's merges. Special tokens cut a text, the longest first, and are not counted."""
    parts = []
    for text in texts:
        for s in sorted(specials, key=len, reverse=True):
            text = text.replace(s, "\0\1\2")
        parts += text.split("\0\1\2")
    return PAGE["train"](parts, n)


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
    text, merges = "low low low lower newest newest", [(b"o", b"w"), (b"l", b"ow")]
    merges += [(b" ", b"low"), (b"w", b"e")]
    assert BPETokenizer.train([text], 256 + 4, special_tokens=()).merges == merges
    assert slow_train([text], 4) == merges
    assert sum(bool(line.strip()) for line in BLOCK.splitlines()) <= 32  # thirty, and two imports


@pytest.mark.parametrize("n", [0, 1, 2, 9, 30, 60])
def test_vocabularies_of_every_size(n):
    """60 is more than the text has to give: both then stop at the same merge."""
    text = make_text(1500)
    merges = BPETokenizer.train([text], 256 + n, special_tokens=()).merges
    assert merges == slow_train([text], n)
    assert (len(merges) < n) == (n == 60)


@pytest.mark.parametrize("seed", range(5))
def test_ties(seed):
    """Letters so few and words so short that nearly all pairs tie at every merge."""
    rng = random.Random(seed)
    words = {"".join(rng.choices("abcé", k=rng.randint(1, 6))) for _ in range(30)}
    text = " ".join(sorted(words, key=lambda word: rng.random()))
    merges = BPETokenizer.train([text], 256 + 60, special_tokens=()).merges
    assert merges == slow_train([text], 60)


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
