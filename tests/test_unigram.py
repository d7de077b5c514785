"""UnigramTokenizer's promises: any text comes back, special tokens, workers, files, errors."""

import json
import pickle
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tok as room
from tok import UnigramTokenizer

END = "<|endoftext|>"
TEXT = "It was a dark and stormy night;  the rain fell in torrents.\n\n\tnaïve café 🙂🙂 " * 3
TEXTS = st.text() | st.text(st.sampled_from("atrn  \n\té🙂漢\u2581<|>"), max_size=60)


@pytest.fixture(scope="module")
def tok():
    return UnigramTokenizer.train([TEXT], 290)


def test_the_vocabulary_counts_everything(tok):
    assert tok.vocab_size == 290 == len(tok.vocab)
    assert tok.special_tokens == {END: 289}
    assert [tok.vocab[i] for i in range(256)] == [bytes([i]) for i in range(256)]
    assert len(set(tok.vocab.values())) == 290  # never two ids for the same bytes
    assert {"a", "é", "🙂", " "} <= tok.scores.keys()
    assert all(score < 0 for score in tok.scores.values())
    scores = [tok.scores[tok.vocab[i].decode()] for i in range(256, 289)]
    assert scores == sorted(scores, reverse=True)


@given(text=TEXTS)
def test_any_text_comes_back(tok, text):
    ids = tok.encode(text)
    assert tok.decode(ids) == text == "".join(tok.decode_stream(ids))
    assert tok.decode_bytes(ids) == text.encode()
    assert tok.decode(tok.sample(text, alpha=0.3, seed=5)) == text
    assert all(tok.decode(found) == text for found, _ in tok.n_best(text, 3))


@given(ids=st.lists(st.integers(0, 289)))
def test_any_ids_decode_and_streams_agree(tok, ids):
    pieces = list(tok.decode_stream(ids))
    assert "".join(pieces) == tok.decode(ids)
    assert all(pieces)


def test_special_tokens_are_plain_text_unless_allowed(tok):
    assert 289 not in tok.encode("a" + END)
    assert tok.encode("a" + END + "a", allowed_special="all") == [97, 289, 97]
    assert tok.encode("a" + END, allowed_special={END}) == [97, 289]
    assert tok.decode([97, 289]) == "a" + END


@given(text=TEXTS, cuts=st.lists(st.integers(0, 200)))
def test_chunks_do_not_matter(tok, text, cuts):
    text = (text + END) * 2
    edges = [0, *sorted(cuts), len(text)]
    chunks = [text[a:b] for a, b in pairwise(edges)]
    for choice in ("none", "all"):
        want = tok.encode(text, allowed_special=choice)
        assert list(tok.encode_iter(chunks, allowed_special=choice)) == want


@pytest.mark.parametrize("workers", [1, 2])
def test_blocks_and_documents_whatever_the_workers(tok, monkeypatch, workers):
    monkeypatch.setattr("tok.common.BLOCK", 50)
    blocks = tok.encode_blocks([TEXT, END], allowed_special="all", workers=workers)
    assert [i for b in blocks for i in b] == tok.encode(TEXT + END, allowed_special="all")
    documents = [TEXT, "", ["a ", "b"], END]
    want = [i for d in documents for i in [*tok.encode("".join(d)), 289]]
    found = tok.encode_documents(documents, end=289, workers=workers)
    assert [i for b in found for i in b] == want


@settings(max_examples=40)
@given(texts=st.lists(TEXTS, min_size=1), extra=st.integers(1, 60), pattern=st.sampled_from("sgn"))
def test_training_takes_any_text(texts, extra, pattern):
    pattern = {"s": "spaces", "g": "gpt2", "n": "none"}[pattern]
    characters = set("".join(texts))
    if not characters:
        return
    least = 256 + sum(c >= "\x80" for c in characters)
    tok = UnigramTokenizer.train(texts, least + extra, special_tokens=[], pattern=pattern)
    assert least <= tok.vocab_size <= least + extra
    assert [tok.decode(tok.encode(t)) for t in texts] == texts
    assert all(i < 256 or tok.vocab[i].decode() in tok.scores for t in texts for i in tok.encode(t))


def test_save_and_load(tok, tmp_path):
    tok.save(tmp_path / "t.json")
    back = room.load(tmp_path / "t.json")
    assert isinstance(back, UnigramTokenizer)
    assert (back.vocab, back.scores, back.special_tokens) == (
        tok.vocab,
        tok.scores,
        tok.special_tokens,
    )
    assert back.encode(TEXT) == tok.encode(TEXT) == pickle.loads(pickle.dumps(tok)).encode(TEXT)
    first = (tmp_path / "t.json").read_bytes()
    back.save(tmp_path / "t.json")
    assert (tmp_path / "t.json").read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_a_piece_of_one_ascii_character_is_its_byte():
    tok = UnigramTokenizer.from_pieces({"a": -1.0, "é": -2.0, "aé": -2.5}, ["<x>"])
    assert [tok.vocab[i].decode() for i in (97, 256, 257, 258)] == ["a", "é", "aé", "<x>"]
    assert tok.encode("aéaé b") == [257, 257, 32, 98]
    assert tok.encode("éa漢") == [256, 97, *"漢".encode()]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda t: t.decode([1, 290]), "unknown id 290"),
        (lambda t: t.encode("ab\ud800"), "character 2 is .* half of a surrogate"),
        (lambda t: t.n_best("ab\ud800", 1), "character 2 is .* half of a surrogate"),
        (lambda t: t.sample("ab\ud800", alpha=1, seed=0), "character 2 is .* half of a surrogate"),
        (lambda t: t.encode("", allowed_special="some"), "give 'none', 'all'"),
        (lambda t: t.n_best("a", 0), "n=0; give 1 or more"),
        (lambda t: t.sample("a", alpha=float("nan"), seed=0), "alpha=nan; give"),
        (lambda t: UnigramTokenizer.train([], 300), "text is empty"),
        (lambda t: UnigramTokenizer.train(["", ""], 300), "text is empty"),
        (lambda t: UnigramTokenizer.train("abc", 300), "one string; give a list"),
        (lambda t: UnigramTokenizer.train(["a\udfff"], 300), "half of a surrogate"),
        (
            lambda t: UnigramTokenizer.train(["éa漢é"], 258),
            r"vocab_size=258 .* 256 bytes \+ 2 characters \+ 1 special tokens; give at least 259",
        ),
        (lambda t: UnigramTokenizer.train(["a"], 300, special_tokens="<x>"), "one string"),
        (lambda t: UnigramTokenizer.train(["a"], 300, pattern="("), "does not compile"),
        (lambda t: UnigramTokenizer.from_pieces({}), "no piece"),
        (lambda t: UnigramTokenizer.from_pieces({"": -1.0}), "'' is not text"),
        (lambda t: UnigramTokenizer.from_pieces({"a": float("nan")}), "score of 'a' is nan"),
        (lambda t: UnigramTokenizer.from_pieces({"ab": float("inf")}), "score of 'ab' is inf"),
        (lambda t: UnigramTokenizer.from_pieces({"a\ud800": -1.0}), "half of a surrogate"),
        (lambda t: UnigramTokenizer.from_pieces({"ab": -1.0}, ["ab"]), "special token 'ab'"),
    ],
)
def test_errors_name_the_value(tok, call, says):
    with pytest.raises(ValueError, match=says):
        call(tok)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocab_size": 7}, "290 ids, not the 7 promised"),
        ({"bytes": [0] * 256}, "id 0 is both"),
        ({"bytes": list(range(255))}, "255 byte ids, not 256"),
        ({"bytes": [None] * 256}, "ids are not 0 to"),
        ({"pieces": []}, "no piece"),
        ({"pieces": [[256, "a"]]}, "not enough values"),
        ({"pieces": [[256, "aa", -1.0], [257, "aa", -1.0]]}, "256 and 257 are both 'aa'"),
        ({"pieces": [[256, "aa", "x"]]}, "could not convert|damaged"),
        ({"pieces": [[256, 5, -1.0]]}, "is not text"),
        ({"pieces": [["256", "aa", -1.0]]}, "damaged"),
        ({"pieces": [[256, "aa", float("nan")]]}, "score of 'aa' is nan"),
        ({"normalizer": [["magic"]]}, "'magic'"),
        ({"normalizer": [["charsmap", "AAAA", []]]}, "trie"),
        ({"normalizer": 5}, "damaged"),
        ({"unknown": 4}, "unknown=4 is no special token"),
        ({"special_tokens": {"<x>": 0}}, "id 0 is both"),
        ({"pattern": "("}, "does not compile"),
        ({"comment": "x"}, r"unknown: \['comment'\]"),
        ({"kind": "bpe"}, "damaged"),
    ],
)
def test_a_damaged_file_is_named(tok, tmp_path, changes, says):
    tok.save(tmp_path / "t.json")
    found = json.loads((tmp_path / "t.json").read_text("utf-8"))
    (tmp_path / "b.json").write_text(json.dumps(found | {"vocab_size": 291}), "utf-8")
    with pytest.raises(ValueError, match="not the contents"):
        room.load(tmp_path / "b.json")
    del found["sha256"]
    (tmp_path / "d.json").write_text(json.dumps(found | changes), "utf-8")
    with pytest.raises(ValueError, match=f"(?s)d.json: .*({says})"):
        room.load(tmp_path / "d.json")
