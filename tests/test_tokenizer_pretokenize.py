"""Splitting: all implementations give the published pattern's words, and cuts change nothing."""

import pickle

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from tok.bpe.pretokenize import PATTERNS, Splitter
from tok.pieces import safe_pieces
from tok.special import special_parts

AWKWARD = "aZé漢1²½ \t\n\r\x0b\x1c\x85\xa0\u2028\u3000'sſtl\u0301_-,.!🙂\u200d\u05d0\u0627\0"
texts = st.text(st.sampled_from(AWKWARD), max_size=40) | st.text(max_size=40)
ascii_texts = st.text(st.characters(max_codepoint=127), max_size=40)
named = pytest.mark.parametrize("name", ["gpt2", "gpt2_digits", "gpt4", "llama3"])


@named
@given(text=texts | ascii_texts)
def test_all_implementations_give_the_words_of_the_pattern(name, text):
    split = Splitter(name)
    want = regex.findall(PATTERNS[name], text)
    assert split.words(text) == want
    assert [w for unit in split.units(text) for w in split.words(unit)] == want
    assert "".join(want) == text


@named
@given(text=texts, more=texts)
def test_a_cut_holds_whatever_comes_next(name, text, more):
    """The words before the cut are the same with and without the rest."""
    split = Splitter(name)
    at = split.cut(text)
    words = split.words(text[:at]) + split.words(text[at:] + more)
    assert words == split.words(text + more)


@pytest.mark.parametrize(
    ("name", "text", "at"),
    [
        ("gpt2", "one two", 3),
        ("gpt2", "one\ntwo", 3),
        ("gpt2", "one two \n ", 7),
        ("gpt4", "one,\ntwo", 0),  # the sign takes the line break
        ("gpt4", "one\ntwo", 3),
        ("gpt2", "one", 0),
        ("none", "one two", 0),
        (r"\S+|\s", "one two", 0),
    ],
)
def test_where_a_text_is_cut(name, text, at):
    assert Splitter(name).cut(text) == at


@given(chunks=st.lists(st.text("é漢1a ", max_size=9), max_size=9), size=st.integers(1, 9))
def test_pieces_are_the_text_and_break_no_special_token(chunks, size):
    specials = ["é漢", "é漢1", "a a 1"]
    pieces = list(safe_pieces(chunks, specials, Splitter().cut, size))
    text = "".join(chunks)
    assert "".join(pieces) == text

    def parts(t):
        return [p for p, special in special_parts(t, specials) if special]

    assert [s for piece in pieces for s in parts(piece)] == parts(text)


def test_special_tokens_the_longest_first():
    found = list(special_parts("a<|x|>b<|x|>y<|x|>", ["<|x|>", "<|x|>y"]))
    assert found == [("a", False), ("<|x|>", True), ("b", False), ("<|x|>y", True), ("<|x|>", True)]
    assert list(special_parts("", ["x"])) == [("", False)]
    assert list(special_parts("x", [])) == [("x", False)]


def test_a_pattern_of_your_own():
    split = Splitter(r"(\d)|(\D+)|")  # groups and an empty match do no harm
    assert split.words("a1b") == ["a", "1", "b"]
    assert split.units("a1b") == ["a", "1", "b"]
    assert split.words("") == []
    assert pickle.loads(pickle.dumps(split)).words("a1") == ["a", "1"]


@pytest.mark.parametrize(
    ("pattern", "text", "says"),
    [
        (r"[a-z]+", "ab1c", r"skips '1' at character 2; .*\|\\s\+\|\\S"),
        (r"[a-z]+", "ab ", r"skips ' ' at character 2"),
        (
            r"[a-z",
            "",
            r"does not compile: .* gpt2, gpt2_digits, gpt4, llama3, spaces, metaspace, none",
        ),
    ],
)
def test_a_bad_pattern_says_where(pattern, text, says):
    with pytest.raises(ValueError, match=says):
        Splitter(pattern).words(text)
