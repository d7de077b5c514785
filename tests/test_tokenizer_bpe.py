"""BPETokenizer's promises: special tokens, round trips, files, errors."""

import hashlib
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tok as room
from tok import BPETokenizer, CharTokenizer

TEXT = "It was a dark and stormy night; the rain fell in torrents. naïve café 🙂🙂 " * 3
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def tok():
    return BPETokenizer.train([TEXT], 300)


def test_the_vocabulary_counts_everything(tok):
    assert tok.vocab_size == 300 == len(tok.vocab)
    assert tok.special_tokens == {END: 299}
    assert tok.vocab[299] == END.encode()
    assert [tok.vocab[i] for i in range(256)] == [bytes([i]) for i in range(256)]
    assert [tok.vocab[256 + i] for i in range(43)] == [a + b for a, b in tok.merges]


def test_special_tokens_are_plain_text_unless_allowed(tok):
    assert 299 not in tok.encode("a" + END)
    assert tok.encode("a" + END + "b", allowed_special="all") == [97, 299, 98]
    assert tok.encode("a" + END, allowed_special={END}) == [97, 299]
    assert 299 not in tok.encode("a" + END, allowed_special=set())
    assert tok.decode([97, 299]) == "a" + END


@given(text=st.text())
def test_round_trip(tok, text):
    assert tok.decode(tok.encode(text)) == text
    assert "".join(tok.decode_stream(tok.encode(text))) == text


@given(ids=st.lists(st.integers(0, 299)))
def test_any_ids_decode_and_streams_agree(tok, ids):
    pieces = list(tok.decode_stream(ids))
    assert "".join(pieces) == tok.decode(ids)
    assert all(pieces)


def test_a_stream_never_shows_half_a_character(tok):
    ids = list("é🙂".encode())
    assert list(tok.decode_stream(ids)) == ["é", "🙂"]
    assert list(tok.decode_stream([*ids[:3], 97])) == ["é", "\ufffda"]
    assert list(tok.decode_stream(ids[:5])) == ["é", "\ufffd"]


@given(text=st.text(), cuts=st.lists(st.integers(0, 200)))
def test_chunks_do_not_matter(tok, text, cuts):
    text = (text + END) * 2
    edges = [0, *sorted(cuts), len(text)]
    chunks = [text[a:b] for a, b in pairwise(edges)]
    for choice in ("none", "all"):
        want = tok.encode(text, allowed_special=choice)
        assert list(tok.encode_iter(chunks, allowed_special=choice)) == want


def test_save_and_load(tok, tmp_path):
    path = tmp_path / "t.json"
    tok.save(path)
    first = hashlib.sha256(path.read_bytes()).hexdigest()
    back = room.load(path)
    assert isinstance(back, BPETokenizer)
    assert (back.vocab, back.merges) == (tok.vocab, tok.merges)
    assert (back.special_tokens, back.pattern) == (tok.special_tokens, tok.pattern)
    back.save(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == first
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]
    assert json.loads(path.read_text("utf-8"))["merges"][0] == [
        256,
        [240],
        [159],
    ]  # bytes of 🙂, no text


def test_a_small_vocabulary_is_refused_and_a_large_one_stops():
    with pytest.raises(ValueError, match=r"vocab_size=256 .* at least 257"):
        BPETokenizer.train(["a"], 256)
    assert BPETokenizer.train(["ab ab"], 1000).vocab_size == 256 + 1 + 2


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda t: t.decode([1, 300]), "unknown id 300"),
        (lambda t: t.decode([-1]), "unknown id -1"),
        (lambda t: t.encode("ab\ud800"), "character 2 is .* half of a surrogate"),
        (lambda t: t.encode("", allowed_special="some"), "give 'none', 'all'"),
        (lambda t: t.encode("", allowed_special={"<x>"}), "<x>"),
        (lambda t: BPETokenizer.train([""], 300, special_tokens=["a", "a"]), "2 times"),
        (lambda t: BPETokenizer.train([""], 300, special_tokens=[""]), "not text"),
        (lambda t: BPETokenizer.train([""], 300, special_tokens="<x>"), "one string"),
        (lambda t: BPETokenizer.train([""], 300, special_tokens=["a"]), "ordinary"),
        (lambda t: BPETokenizer.train([""], 300, pattern="("), "does not compile"),
        (lambda t: BPETokenizer.train(["a1"], 300, pattern=r"\d"), "skips 'a' at character 0"),
        (lambda t: BPETokenizer({0: b"a", 1: b"b"}, [(b"a", b"b")]), "no id for b'ab'"),
    ],
)
def test_errors_name_the_value(tok, call, says):
    with pytest.raises(ValueError, match=says):
        call(tok)


def test_char_is_sorted_and_exact(tmp_path):
    tok = CharTokenizer.train(["cab", "a\n" + END], special_tokens=[END])
    assert tok.chars == ["\n", "a", "b", "c"]
    assert tok.vocab_size == 5
    assert tok.encode("abc" + END, allowed_special="all") == [1, 2, 3, 4]
    assert tok.decode([1, 2, 3, 4]) == "abc" + END
    assert list(tok.encode_iter(["ab", "c<|endof", "text|>"], allowed_special="all")) == [
        1,
        2,
        3,
        4,
    ]
    with pytest.raises(ValueError, match=r"'<' \(U\+003C\) at 1"):
        tok.encode("a" + END)
    with pytest.raises(ValueError, match="unknown id 5"):
        tok.decode([5])
    with pytest.raises(ValueError, match="empty"):
        CharTokenizer.train([""])
    tok.save(tmp_path / "c.json")
    back = room.load(tmp_path / "c.json")
    assert isinstance(back, CharTokenizer)
    assert (back.vocab, back.special_tokens) == (tok.vocab, tok.special_tokens)


@pytest.mark.parametrize("i", [300, 1_000_000, -1, 2**40])
def test_ids_have_no_gaps(i):
    """Published files with an id of 1,000,000 were taken, and encoding was an OverflowError."""
    vocab = {j: bytes([j]) for j in range(256)}
    with pytest.raises(ValueError, match="the ids are not 0 to 256, each once"):
        BPETokenizer({**vocab, i: b"<|x|>"}, [], ["<|x|>"])
