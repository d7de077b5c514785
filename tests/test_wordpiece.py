"""WordPieceTokenizer against Hugging Face's BertTokenizer, and its own promises."""

import json
import pickle
import unicodedata
from pathlib import Path

import pytest
from conftest import make_text, shared_texts
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tok as room
from tok import END_OF_TEXT, WordPieceTokenizer
from tok.wordpiece.pair import fit

WORDS = "un ##want ##ed ##a ##ran ##n r ##é é e ##e 中 文 ##文 a ##b b ##s ' ’ , ! - # [ ] UN É ك"
WORDS += " ߽ ##߽ İ i 각 ##가 ᄀ ##ᅡ ##ᆨ ß ss ς σ ##σ Σ \U0001f642 x ##x ##\u0301 ##\u302e ẞ \ua7cb"
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
AWKWARD = [
    "",
    " ",
    "\n\n \t\r\n",
    "unwanted rané, éa!  ab\u0301c",
    "e\u0301 É E\u0301\u0323x İa ΑΣ ΣΑς ẞß",
    "中文a文b\u3000ab\u00a0b\u2028a",
    "a\x0bb a\x1cb a\x85b a\0b a\ufffdb a\u200bb a\u00adb \ufeffa",
    "a.b,c!!--'s [UNK] [CLS]a [MASK] ##b # ##",
    "x" * 100 + " " + "x" * 101 + " ab",
    "가각\u1100\u1161 ك\u07fd \u166d\u1734a \U00020000\U0002b820a \U0002b920",
    "\U0001f642\u200d\U0001f642 a\U0001f642b",
]
anything = st.text() | st.text(st.sampled_from("".join(VOCAB) + " \n\x1c\x85\u0301\u0323\u302e"))


def peer(tokenizer, **how):
    """BertTokenizer on the same vocabulary, special tokens as plain text."""
    transformers = pytest.importorskip("transformers")
    vocab = {t: i for i, t in tokenizer.vocab.items()}
    return transformers.BertTokenizer(vocab, **how)._tokenizer


def theirs(hf, text):
    """Ids and offsets, special tokens in the text split like any other."""
    hf.encode_special_tokens = True
    found = hf.encode(text, add_special_tokens=False)
    return found.ids, found.offsets


HOW = [(True, None, True), (False, None, True), (True, False, True), (False, True, False)]
PAIRS = {}


def both(how):
    """Ours and theirs for lowercase, strip_accents, cjk; made once."""
    if how not in PAIRS:
        names = "do_lower_case", "strip_accents", "tokenize_chinese_chars"
        ours = WordPieceTokenizer(VOCAB, (), *how)
        PAIRS[how] = ours, peer(ours, **dict(zip(names, how, strict=True)))
    return PAIRS[how]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_as_bert_has_them(how, text):
    ours, hf = both(how)
    assert ours.encode_offsets(text) == theirs(hf, text)
    assert ours.encode(text) == ours.encode_offsets(text)[0]


@pytest.mark.parametrize("how", HOW)
@settings(deadline=None)  # the first call imports transformers
@given(text=anything)
@example("a\ua7cbb")
def test_any_text_as_bert_has_it(how, text):
    """Letters that this Python's Unicode doesn't know have no lowercase here."""
    text = "".join(c for c in text if unicodedata.category(c) != "Cn")
    ours, hf = both(how)
    assert ours.encode_offsets(text) == theirs(hf, text)
    assert ours.encode(text) == ours.encode_offsets(text)[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_every_character_as_bert_has_it(how):
    ours, hf = both(how)
    for code in (c for c in range(0x110000) if not 0xD800 <= c < 0xE000):
        if unicodedata.category(chr(code)) != "Cn":
            text = f"a{chr(code)}b"
            assert ours.encode_offsets(text) == theirs(hf, text), hex(code)


@pytest.mark.slow
@pytest.mark.parametrize("lowercase", [True, False])
def test_real_texts_as_bert_has_them(lowercase):
    texts = [path.read_text(encoding="utf-8") for path in shared_texts()]
    ours = WordPieceTokenizer.train(texts, 2000, lowercase=lowercase)
    hf = peer(ours, do_lower_case=lowercase)
    for text in texts:
        ids, spans = theirs(hf, text)
        assert ours.encode(text) == ids
        assert ours.encode_offsets(text) == (ids, spans)


def test_words_by_hand():
    t = WordPieceTokenizer(VOCAB)
    text = "Unwanted, rané!  中文xyz"
    ids, spans = t.encode_offsets(text)
    tokens = [t.vocab[i] for i in ids]
    assert tokens == [
        "un",
        "##want",
        "##ed",
        ",",
        "r",
        "##a",
        "##n",
        "##e",
        "!",
        "中",
        "文",
        "[UNK]",
    ]
    assert [text[a:b] for a, b in spans[:4]] == ["Un", "want", "ed", ","]
    assert [text[a:b] for a, b in spans[7:]] == ["é", "!", "中", "文", "xyz"]
    assert t.decode(ids) == "unwanted, rane! 中 文 [UNK]"  # é is e, and two blanks are one


def test_special_tokens_are_plain_text_unless_allowed():
    t = WordPieceTokenizer(VOCAB, ["<end>"])
    assert t.special_tokens == {**{s: i for i, s in enumerate(VOCAB[:5])}, "<end>": len(VOCAB)}
    text = "a[MASK]b<end>"
    assert not {4, len(VOCAB)} & set(t.encode(text))
    ids, spans = t.encode_offsets(text, allowed_special="all")
    assert ids == t.encode(text, allowed_special="all")
    assert [t.vocab[i] for i in ids] == ["a", "[MASK]", "b", "<end>"]
    assert spans == [(0, 1), (1, 7), (7, 8), (8, 13)]
    assert len(VOCAB) not in t.encode(text, allowed_special={"[MASK]"})
    hf = peer(t)
    assert hf.encode("a[MASK]b", add_special_tokens=False).offsets == spans[:3]


def test_a_special_token_is_no_piece_of_a_word():
    """[UNK], and not the special token, for a text that spells it in letters."""
    t = WordPieceTokenizer([*VOCAB, "end"], ["end"])
    assert [t.vocab[i] for i in t.encode("end ab")] == ["[UNK]", "a", "##b"]


@given(text=anything, cuts=st.lists(st.integers(0, 60)))
def test_chunks_do_not_matter(text, cuts):
    t = WordPieceTokenizer(VOCAB)
    chunks = [text[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), None], strict=True)]
    want = t.encode(text)
    assert list(t.encode_iter(chunks)) == want
    assert [i for block in t.encode_blocks(chunks) for i in block] == want


def test_small_pieces_and_two_processes_give_the_same(monkeypatch):
    for name in ("SMALL", "PIECE", "BLOCK"):
        monkeypatch.setattr(f"tok.common.{name}", 16)
    t = WordPieceTokenizer(VOCAB, [END_OF_TEXT])
    text = "".join(AWKWARD) + " unwanted [MASK]" * 9
    want = t.encode(text, allowed_special="all")
    assert len([*t.encode_blocks([text], allowed_special="all")]) > 3
    for workers in (1, 2):
        blocks = t.encode_blocks([text], allowed_special="all", workers=workers)
        assert [i for block in blocks for i in block] == want
    monkeypatch.undo()
    assert t.encode(text, allowed_special="all") == want


def test_half_a_surrogate_pair_is_no_character():
    t = WordPieceTokenizer(VOCAB)
    for encode in (t.encode, t.encode_offsets, lambda text: list(t.encode_iter([text]))):
        with pytest.raises(ValueError, match=r"character 3 is '\\ud83d', half of a surrogate pair"):
            encode("ab \ud83d")


def test_decoding():
    t = WordPieceTokenizer(VOCAB)
    ids = t.encode("Unwanted, a's  b!")
    assert list(t.decode_stream(ids)) == [" un", "want", "ed", ",", " a", "'", " [UNK]", " b", "!"]
    assert t.decode_bytes(ids) == b" unwanted, a' [UNK] b!"
    assert t.decode(ids) == "unwanted, a' [UNK] b!"
    assert t.decode([]) == ""
    assert t.decode([2, VOCAB.index("a"), 3]) == "[CLS] a [SEP]"
    for i in (-1, len(VOCAB)):
        with pytest.raises(ValueError, match=f"unknown id {i}; the vocabulary has 0 to"):
            t.decode([i])


@given(ids=st.lists(st.integers(0, len(VOCAB) - 1)), n=st.integers(0, 20))
def test_a_text_can_be_decoded_in_parts(ids, n):
    t = WordPieceTokenizer(VOCAB)
    assert t.decode_bytes(ids[:n]) + t.decode_bytes(ids[n:]) == t.decode_bytes(ids)
    assert t.decode(ids) == t.decode_bytes(ids).decode().removeprefix(" ")


@given(text=st.text(st.sampled_from("unwanted ab,.!\n"), max_size=40))
def test_what_is_decoded_encodes_alike(text):
    """Once through is lossy, twice changes nothing more."""
    more = [*"ndtuw.", *(f"##{c}" for c in "undtwea")]
    t = WordPieceTokenizer([*VOCAB, *(c for c in more if c not in VOCAB)])
    ids = t.encode(text)
    assert t.encode(t.decode(ids)) == ids
    assert not t.lossless


def test_pairs_by_hand():
    t = WordPieceTokenizer(VOCAB)
    a, b, x = (VOCAB.index(c) for c in "abx")
    assert t.encode_pair("a b") == ([2, a, b, 3], [0, 0, 0, 0])
    assert t.encode_pair("a b", "x") == ([2, a, b, 3, x, 3], [0, 0, 0, 0, 1, 1])
    assert t.encode_pair("", "") == ([2, 3, 3], [0, 0, 1])
    assert t.encode_pair("a a a a", "x x", length=6) == ([2, a, a, 3, x, 3], [0, 0, 0, 0, 1, 1])
    assert t.encode_pair("a a a", length=4) == ([2, a, a, 3], [0] * 4)
    for text, other, length, least in (("a", "b", 4, 5), ("a", None, 2, 3), ("", "b", 3, 4)):
        with pytest.raises(ValueError, match=f"length={length} leaves no token.*at least {least}"):
            t.encode_pair(text, other, length=length)
    with pytest.raises(ValueError, match=r"the vocabulary has no \[CLS\]"):
        WordPieceTokenizer(["[UNK]", "a"]).encode_pair("a")


@settings(deadline=None)
@given(a=st.integers(0, 12), b=st.integers(0, 12), length=st.integers(5, 30))
def test_pairs_are_cut_as_bert_cuts_them(a, b, length):
    t, hf = both(HOW[0])
    hf.enable_truncation(length, strategy="longest_first")
    found = hf.encode("a " * a, "b " * b)
    hf.no_truncation()
    assert t.encode_pair("a " * a, "b " * b, length=length) == (found.ids, found.type_ids)
    assert sum(fit(a, b, length - 3)) == min(a + b, length - 3)


@pytest.mark.parametrize("how", [(True, None, True, 100), (False, True, False, 3)])
def test_files(tmp_path, how):
    made = WordPieceTokenizer(VOCAB, [END_OF_TEXT, "<é>"], *how)
    made.save("a.json")
    found = room.load("a.json")
    found.save("b.json")
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()
    made.save_hf("tokenizer.json")
    back = WordPieceTokenizer.from_hf("tokenizer.json")
    other = pickle.loads(pickle.dumps(made))
    made.save_vocab("vocab.txt")
    plain = WordPieceTokenizer.from_vocab("vocab.txt", lowercase=how[0], strip_accents=how[1])
    assert plain.vocab == made.vocab
    for text in AWKWARD:
        for t in (found, back, other, *([plain] if how[2] else ())):
            assert t.encode_offsets(text) == made.encode_offsets(text)
    for t in (found, back, other):
        assert (t.vocab, t.special_tokens) == (made.vocab, made.special_tokens)


@pytest.mark.parametrize("lowercase", [True, False])
def test_the_file_for_tokenizers_gives_the_same_ids(lowercase):
    tokenizers = pytest.importorskip("tokenizers")
    made = WordPieceTokenizer(VOCAB, [END_OF_TEXT], lowercase)
    made.save_hf("tokenizer.json")
    hf = tokenizers.Tokenizer.from_file("tokenizer.json")
    text = " ".join(AWKWARD) + END_OF_TEXT
    want = made.encode_offsets(text, allowed_special="all")
    found = hf.encode(text, add_special_tokens=False)
    assert (found.ids, found.offsets) == want
    pair = hf.encode("unwanted a", "b")
    assert (pair.ids, pair.type_ids) == made.encode_pair("unwanted a", "b")
    hf.save("again.json")  # as `tokenizers` writes it
    assert WordPieceTokenizer.from_hf("again.json").encode(text) == made.encode(text)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("[UNK]\na\nb\na\n", "lines 2 and 4 are both 'a'; keep one of them"),
        (
            "a\nb\n",
            r"lines 1 to 2 have no \[UNK\], which stands for words that can't be spelt; add",
        ),
        ("[UNK]\n\nb\n", "line 2 is '', no token"),
        ("", "line 1 is '', no token"),
    ],
)
def test_a_wrong_vocabulary_is_named(lines, says):
    Path("vocab.txt").write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match=f"^vocab.txt: {says}"):
        WordPieceTokenizer.from_vocab("vocab.txt")


def test_a_vocabulary_in_memory_is_checked_too():
    with pytest.raises(ValueError, match="ids 1 and 2 are both 'a'"):
        WordPieceTokenizer(["[UNK]", "a", "a"])
    with pytest.raises(ValueError, match="id 1 is None, no token"):
        WordPieceTokenizer(["[UNK]", None])
    with pytest.raises(ValueError, match="a line can't hold; save it as JSON"):
        WordPieceTokenizer(["[UNK]", "a\nb"]).save_vocab("vocab.txt")
    assert not Path("vocab.txt").exists()


def test_windows_line_breaks_are_no_part_of_tokens():
    Path("vocab.txt").write_bytes(b"[UNK]\r\na\r\n##b\r\n")
    assert WordPieceTokenizer.from_vocab("vocab.txt").encode("ab c") == [1, 2, 0]


def changed(found, **changes):
    """A tokenizer.json with one part replaced; `model` and `normalizer` by keys."""
    for key, value in changes.items():
        if isinstance(found.get(key), dict) and value is not None:
            value = found[key] | value
        found = found | {key: value}
    return found


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"type": "BPE"}}, "no tokenizer.json of kind WordPiece, but of BPE"),
        ({"model": {"unk_token": "<unk>"}}, "unk_token='<unk>', not"),
        ({"model": {"continuing_subword_prefix": "@@"}}, "continuing_subword_prefix='@@'"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "does not split by BertPreTokenizer"),
        ({"normalizer": None}, "its normalizer is not a BertNormalizer"),
        ({"normalizer": {"clean_text": False}}, "its normalizer is not a BertNormalizer"),
        ({"model": {"vocab": {"[UNK]": 1, "a": 3}}, "added_tokens": []}, "the ids are not 0 to"),
        ({"model": {"vocab": {"a": 0}}, "added_tokens": []}, r"have no \[UNK\]"),
        ({"model": {"vocab": 3}}, "damaged"),
        ({"added_tokens": [{"id": 0, "content": "x"}]}, r"id 0 is both '\[PAD\]' and 'x'"),
        ({"added_tokens": [{"id": 0, "content": "[PAD]", "lstrip": True}]}, "takes white space"),
    ],
)
def test_what_works_otherwise_is_refused(changes, says):
    WordPieceTokenizer(VOCAB).save_hf("tokenizer.json")
    found = json.loads(Path("tokenizer.json").read_text(encoding="utf-8"))
    Path("tokenizer.json").write_text(json.dumps(changed(found, **changes)), encoding="utf-8")
    with pytest.raises(ValueError, match=f"^tokenizer.json: .*{says}"):
        WordPieceTokenizer.from_hf("tokenizer.json")


def test_a_damaged_file_is_refused():
    WordPieceTokenizer(VOCAB).save("a.json")
    text = Path("a.json").read_text(encoding="utf-8")
    Path("a.json").write_text(text.replace('"##want"', '"##went"'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"^a\.json: damaged"):
        room.load("a.json")


def test_long_words_are_unknown_and_texts_without_blanks_are_read():
    t = WordPieceTokenizer(VOCAB, max_word=3)
    assert [t.vocab[i] for i in t.encode("xxx xxxx")] == ["x", "##x", "##x", "[UNK]"]
    assert t.encode("x" * 200_000) == [1]
    assert len(t.encode("中" * 100_000)) == 100_000


def test_memory_is_bounded():
    t = WordPieceTokenizer(VOCAB)
    encoder = t._encoder.with_limit(5)
    text = make_text(2000)
    assert encoder.encode(text) == t.encode(text)
    assert max(map(len, (encoder.words, encoder.units))) <= 5
