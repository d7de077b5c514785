"""Other programs' unigram models: the same ids as SentencePiece and `tokenizers`; damaged files.

SentencePiece is asked where it is installed; the files that are read without it are made here.
"""

import io
import json
import struct
from contextlib import suppress
from math import isclose

import pytest
import tokenizers
from conftest import shared
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers

from tok import UnigramTokenizer, load
from tok.unigram import __main__ as commands
from tok.unigram.protobuf import fields, message

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BASE = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
SPELT = [(f"<0x{b:02X}>", 0.0, BYTE) for b in range(256)]
WORDS = ["▁", "▁a", "a", "b", "ab", "aab", "▁ba", "b▁", "é", "ﬁ", "fi"]
TEXT = st.text("ab  \té▁ﬁ!漢", max_size=30)
SCORE = st.floats(-12, -0.5, width=32)


def number(n):
    """A varint."""
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(i, kind, value):
    """A field: a number, or bytes behind their length (2) or as they are (1, 5)."""
    if kind == 0:
        return number(i << 3) + number(value)
    return number(i << 3 | kind) + (number(len(value)) if kind == 2 else b"") + value


def piece(text, score, kind):
    """A message of SentencePiece for one piece."""
    found = field(1, 2, text.encode()) + field(2, 5, struct.pack("<f", score))
    return field(1, 2, found + (field(3, 0, kind) if kind != NORMAL else b""))


def model(pieces, trainer=b"", normalizer=b""):
    """A .model file."""
    rows = b"".join(piece(*p) for p in pieces)
    return rows + field(2, 2, trainer) + field(3, 2, normalizer)


def spelt(collapse=1, prefix=1):
    """A trainer's and a normalizer's settings: byte fallback, no rules."""
    return field(35, 0, 1), field(3, 0, prefix) + field(4, 0, collapse)


def imported(path, data):
    (path / "m.model").write_bytes(data)
    return UnigramTokenizer.from_sentencepiece(path / "m.model")


def test_a_model_by_hand(tmp_path):
    words = [("▁a", -1.0, NORMAL), ("▁", -3.0, NORMAL), ("b", -2.0, NORMAL), ("c", -1, UNUSED)]
    tok = imported(tmp_path, model([*BASE, *words, *SPELT], *spelt()))
    assert tok.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert tok.vocab[3] == b" a"
    assert tok.encode("  a   b ") == [3, 4, 5]  # " a", " ", "b"
    assert tok.encode("ac\n") == [3, 7 + 99, 7 + 10]  # c is not used: its byte
    assert tok.decode(tok.encode("a b\n\nb")) == " a b\n\nb"  # with the blank in front
    assert tok.encode("") == tok.encode("   ") == []
    tok.save(tmp_path / "t.json")
    assert load(tmp_path / "t.json").encode("  a   b ") == [3, 4, 5]
    kept = imported(tmp_path, model([*BASE, *words, *SPELT], *spelt(0, 0)))
    assert kept.encode(" a  b ") == [3, 4, 4, 5, 4]
    unspelt = imported(tmp_path, model([*BASE, *words]))
    assert unspelt.encode("ac! b漢") == [3, 0, 4, 5, 0]  # a run of unknown characters is one id


def test_it_takes_several_chunks_as_one_text(tmp_path):
    words = [("▁a", -1.0, NORMAL), ("▁", -3.0, NORMAL), ("b", -2.0, NORMAL)]
    tok = imported(tmp_path, model([*BASE, *words, *SPELT], *spelt()))
    assert list(tok.encode_iter([" ", " a", " ", " b", "  "])) == tok.encode("  a  b  ")
    blocks = tok.encode_documents(["a", [" a ", " b"]], end=2, workers=2)
    assert [i for block in blocks for i in block] == [3, 2, 3, 4, 5, 2]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no piece"),
        (b"\x00", "no field begins at byte 0"),
        (b"not a model at all", "byte"),
        (model(BASE)[:-3], "are left|ends inside"),
        (b"\x0a" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x0a" + b"\xff" * 8 + b"\x7f", "has 9223372036854775807 bytes"),
        (b"\x0a\x80", "ends inside a number"),
        (b"\x0b\x0a", "no field begins"),  # a group
        (field(1, 0, 5), "field 1 is varint, not bytes"),
        (field(1, 2, field(1, 0, 5)), "piece 0: field 1 is varint"),
        (field(1, 2, field(1, 2, b"\xff")), "piece 0: .*utf-8"),
        (model([("a", -1.0, NORMAL)]), "0 pieces for unknown characters"),
        (model([*BASE, *BASE[:1]]), "2 pieces for unknown"),
        (model([*BASE, *BASE[1:], ("a", -1.0, NORMAL)]), "1 and 3 are both '<s>'"),
        (model(BASE), "no piece"),
        (model([*BASE, ("a", float("nan"), NORMAL)]), "score of 'a' is nan"),
        (model([*BASE, ("a", float("inf"), NORMAL)]), "score of 'a' is inf"),
        (model([*BASE, ("", -1.0, NORMAL)]), "'' is not text"),
        (model([*BASE, ("a", -1.0, NORMAL), ("a", -2.0, NORMAL)]), "3 and 4 are both 'a'"),
        (model([*BASE, ("a", -1.0, 9)]), "unknown type 9"),
        (model([*BASE, ("<0x>", 0.0, BYTE)]), "'<0x>' is no byte"),
        (model([*BASE, ("a", -1.0, NORMAL), *SPELT[:9]], *spelt()), "it has 9 bytes"),
        (model([*BASE, ("a", -1.0, NORMAL), *SPELT]), "byte_fallback=False, but it has 256"),
        (model(BASE, field(3, 0, 2)), "kind bpe; only unigram"),
        (model(BASE, field(24, 0, 1)), "treat_whitespace_as_suffix"),
        (model([*BASE, ("a", -1.0, NORMAL)], b"", field(5, 0, 0)), "escape_whitespaces"),
        (model([*BASE, ("a", -1.0, NORMAL)], b"", field(2, 2, b"abcdefgh")), "trie has"),
    ],
)
def test_damaged_models_are_named(tmp_path, data, says):
    with pytest.raises(ValueError, match=f"m.model: .*({says})"):
        imported(tmp_path, data)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_are_a_model_or_a_value_error(tmp_path_factory, data):
    """Random bytes, and a good model with bytes changed or cut; rules of a trie as well."""
    rules = struct.pack("<I3I", 12, 0x400, 0x80000161, 0x80000000) + b"x\0"
    good = model([*BASE, ("a", -1.0, NORMAL)], b"", field(2, 2, rules))
    whole = data.draw(st.just(good) | st.binary(max_size=60))
    at = data.draw(st.integers(0, len(whole)))
    new = data.draw(st.binary(max_size=3))
    end = data.draw(st.integers(0, 4))
    path = tmp_path_factory.mktemp("fuzz") / "m.model"
    path.write_bytes(whole[:at] + new + whole[at + end :])
    with suppress(ValueError):
        UnigramTokenizer.from_sentencepiece(path).encode("a b é ab")


@given(data=st.binary(max_size=40))
def test_fields_use_each_byte_once_or_refuse(data):
    try:
        found = list(fields(data))
    except ValueError:
        return
    assert sum(len(v) if isinstance(v, bytes) else 1 for *_, v in found) <= len(data)
    assert message(data, {}) == {}


def peer(data):
    """SentencePiece with this model."""
    spm = pytest.importorskip("sentencepiece")
    found = spm.SentencePieceProcessor()
    found.LoadFromSerializedProto(data)
    return found


def agree(ours, theirs, text, margin):
    """The same ids; or another way with a sum that 32 bits can't tell from ours."""
    mine, other = ours.encode(text), theirs.encode(text)
    if mine == other:
        return True
    (_, first), *_ = found = ours.n_best(text, 200)
    return other in [ids for ids, s in found if first - s < margin]


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(SCORE, min_size=len(WORDS), max_size=len(WORDS)),
    texts=st.lists(TEXT, min_size=8, max_size=8),
    collapse=st.booleans(),
    prefix=st.booleans(),
    fallback=st.booleans(),
)
def test_the_same_as_sentencepiece(tmp_path_factory, scores, texts, collapse, prefix, fallback):
    words = [(w, s, NORMAL) for w, s in zip(WORDS, scores, strict=True)]
    words[4] = ("ab", scores[4], USER)
    trainer, normalizer = spelt(int(collapse), int(prefix))
    pieces = [*BASE, *words, *(SPELT if fallback else [])]
    data = model(pieces, trainer if fallback else b"", normalizer)
    theirs, ours = peer(data), imported(tmp_path_factory.mktemp("m"), data)
    for text in texts:
        assert agree(ours, theirs, text, 1e-4), text
        best = theirs.nbest_encode_as_proto(text, 2).nbests
        if "ab" not in text and text.strip(" ▁") and best:  # it scores those otherwise here
            score = ours.n_best(text, 1)[0][1]
            assert isclose(best[0].score, score, rel_tol=1e-5, abs_tol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"normalization_rule_name": "identity", "byte_fallback": True},
        {"normalization_rule_name": "nmt_nfkc"},
        {"normalization_rule_name": "nfkc_cf", "split_by_whitespace": False, "byte_fallback": True},
        {"user_defined_symbols": ["king", "<x>"], "add_dummy_prefix": False},
        {"remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True},
    ],
)
def test_trained_models_on_real_texts(tmp_path, how):
    spm = pytest.importorskip("sentencepiece")
    made, lines = io.BytesIO(), shared("grimm.txt").read_text("utf-8").split("\n")
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=made, vocab_size=1500,
        num_threads=1, minloglevel=2, **how,
    )  # fmt: skip
    theirs, ours = peer(made.getvalue()), imported(tmp_path, made.getvalue())
    odd = ["ﬁne  ①\tcafe\u0301 Å \u3000 漢字 \x01\x7f ½", "▁ x▁", " ", "\n", "🙂" * 9, "<x>king<s>"]
    for name in ("grimm.txt", "wikitext2-test.txt", "tinyshakespeare.txt"):
        odd += shared(name).read_text("utf-8").split("\n")[:1500]
    assert [text for text in odd if not agree(ours, theirs, text, 1e-3)] == []


PRE = {
    "metaspace": pre_tokenizers.Metaspace(),
    "never": pre_tokenizers.Metaspace(prepend_scheme="never"),
    "whole": pre_tokenizers.Metaspace(split=False),
    "white": pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    ),
}
NORM = {
    "none": None,
    "usual": normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    ),
    "lower": normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("b", "aé")]),
    "prepend": normalizers.Prepend("▁"),
}


@pytest.mark.parametrize("pre", PRE)
@pytest.mark.parametrize("norm", NORM)
@settings(max_examples=15, deadline=None)
@given(
    scores=st.lists(SCORE, min_size=len(WORDS), max_size=len(WORDS)),
    texts=st.lists(TEXT, min_size=8, max_size=8),
)
def test_the_same_as_tokenizers(tmp_path_factory, pre, norm, scores, texts):
    """Its sums have 64 bits, as ours, and it visits ends in the same order: ties agree, too."""
    vocab = [("<unk>", 0.0), *zip(WORDS, scores, strict=True)]
    theirs = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=False))
    theirs.pre_tokenizer = PRE[pre]
    if NORM[norm]:
        theirs.normalizer = NORM[norm]
    path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
    theirs.save(str(path))
    ours = UnigramTokenizer.from_hf(path)
    for text in texts:
        assert ours.encode(text) == theirs.encode(text).ids, text


@pytest.fixture(scope="module")
def trained():
    text = "the cat sat on the mat,  naïve café\n\nand the dog <0x41 > sat. " * 9
    return UnigramTokenizer.train([text], 300, special_tokens=["<|end|>", "<x>"])


def test_tokenizers_reads_ours(trained, tmp_path):
    trained.save_hf(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    back = UnigramTokenizer.from_hf(tmp_path / "tokenizer.json")
    assert theirs.get_vocab_size() == 300
    assert (back.vocab, back.scores) == (trained.vocab, trained.scores)
    texts = ["the cat  sat\n\n\ton", "a<x>b<|end|>", "漢 é🙂 <0x41>", "", " ", "   x   "]
    for text in texts:
        ids = trained.encode(text, allowed_special="all")
        assert theirs.encode(text).ids == ids == back.encode(text, allowed_special="all")
        assert theirs.decode(ids, skip_special_tokens=False) == text


@pytest.mark.slow
def test_tokenizers_reads_ours_on_real_texts(tmp_path):
    """And what `tokenizers` learnt itself gives the same here."""
    text = shared("grimm.txt").read_text("utf-8")
    ours = UnigramTokenizer.train([text], 1000)
    ours.save_hf(tmp_path / "a.json")
    theirs = tokenizers.Tokenizer(models.Unigram())
    theirs.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=1000, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    theirs.train_from_iterator(text.split("\n"), trainer)
    theirs.save(str(tmp_path / "b.json"))
    for path in ("a.json", "b.json"):
        peer = tokenizers.Tokenizer.from_file(str(tmp_path / path))
        tok = UnigramTokenizer.from_hf(tmp_path / path)
        for name in ("grimm.txt", "wikitext2-test.txt", "tinyshakespeare.txt"):
            for line in shared(name).read_text("utf-8").splitlines(keepends=True)[:3000]:
                line = line.replace("<unk>", "UNK")  # which it always takes for the token
                assert tok.encode(line) == peer.encode(line).ids


def test_only_what_was_trained_here_is_written(tmp_path):
    tok = imported(tmp_path, model([*BASE, ("a", -1.0, NORMAL), *SPELT], *spelt()))
    with pytest.raises(ValueError, match="only a tokenizer that was trained here"):
        tok.save_hf(tmp_path / "x.json")
    clash = UnigramTokenizer.from_pieces({"<0xE9>": -1.0})
    with pytest.raises(ValueError, match="'<0xE9>' is a piece and a byte"):
        clash.save_hf(tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


MODEL = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁a", -1.0]]}
META = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": None}, "no 'model'"),
        ({"model": {"type": "BPE", "vocab": {}}}, "kind BPE; this reads Unigram"),
        ({"model": {**MODEL, "vocab": [["<unk>", 0.0]]}}, "no piece"),
        ({"model": {**MODEL, "vocab": [["<unk>", 0], ["a", None]]}}, "damaged"),
        ({"model": {**MODEL, "vocab": [["<unk>", 0], ["a", float("nan")]]}}, "score of 'a' is nan"),
        ({"model": {**MODEL, "vocab": [["<unk>", 0], ["a", -1], ["a", -2]]}}, "1 and 2 are both"),
        ({"model": {**MODEL, "unk_id": 7}}, "unk_id=7, but there are 2"),
        ({"normalizer": {"type": "Precompiled"}}, r"Precompiled.* take SentencePiece's \.model"),
        ({"normalizer": {"type": "StripAccents"}}, "normalizes texts by StripAccents"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "splits by Whitespace"),
        ({"pre_tokenizer": {**META, "replacement": "_"}}, "ours has the replacement ▁"),
        ({"added_tokens": [{"content": "<m>", "id": 2, "lstrip": True}]}, "takes white space"),
        ({"added_tokens": [{"content": "<m>", "id": 9}]}, "ids are not 0 to 2"),
        ({"added_tokens": [{"content": "▁a", "id": 9}]}, "'▁a' has two ids"),
    ],
)
def test_a_tokenizer_json_that_works_otherwise(tmp_path, changes, says):
    whole = {"model": MODEL, "normalizer": None, "pre_tokenizer": META, "added_tokens": []}
    (tmp_path / "h.json").write_text(json.dumps(whole | changes), "utf-8")
    with pytest.raises(ValueError, match=f"h.json: .*({says})"):
        UnigramTokenizer.from_hf(tmp_path / "h.json")


def test_the_command_imports(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.model").write_bytes(model([*BASE, ("a", -1.0, NORMAL), *SPELT], *spelt()))
    (tmp_path / "h.json").write_text(json.dumps({"model": MODEL, "pre_tokenizer": META}), "utf-8")
    assert commands.main(["import", "m.model", "--out", "t.json"]) == 0
    assert "t.json: 260 tokens" in capsys.readouterr().err
    assert load("t.json").encode("a") == [4 + 32, 3]
    commands.main(["import", "h.json", "--out", "h2.json"])
    assert load("h2.json").encode("a a") == [1, 1]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        commands.main(["import", "none.model", "--out", "x.json"])
    assert sorted(tmp_path.iterdir()) == before
