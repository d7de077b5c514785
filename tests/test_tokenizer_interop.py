"""tiktoken and Hugging Face's tokenizers as second implementations: the same ids, everywhere."""

import json
import random

import pytest
from conftest import shared, shared_texts
from hypothesis import given, settings
from hypothesis import strategies as st

from tok import BPETokenizer
from tok.bpe.interop import LETTER, spelt, unspelt

END = "<|endoftext|>"
AWKWARD = [
    "",
    " ",
    "a",
    "👩‍👩‍👧‍👦 👩🏽‍🚀 🇺🇳",
    "e\u0301 n\u0303o\u0302 \u0301",
    "שלום עולם \u202bمرحبا\u202c بالعالم",
    "\0 a\0b",
    "one\r\ntwo\r\n\r\n three\r",
    "a" + " " * 30 + "b" + "\n" * 9 + "\t\t c  ",
    "x² + y³ = ½ ٣ ४ Ⅷ ㊿",
    "Привет, мир! 你好，世界。こんにちは 안녕하세요 สวัสดี",
    "don't DON'T I'll we've it's o'clock 'sup ''s ſ'ſ",
    "\x1c\x1d\x1e\x1f \x85 \xa0 \u2028 \u3000 \ufeff",
    "<|endoftext|> <|endoftext",
    "\U0010ffff \ue000 \ufffd",
    "12345678901234567890 3.14159e-10 1,000,000",
]
old = st.characters(exclude_categories=("Cs", "Cn"), max_codepoint=0x2FFFF)  # Unicode tables differ
texts = st.text(old, max_size=60) | st.lists(st.sampled_from(AWKWARD)).map("".join)


def mixed(n, seed=0):
    """About n characters of words, numbers, alphabets, code and white space."""
    rng = random.Random(seed)
    words = [
        *[
            "the",
            "of",
            "and",
            "to",
            "café",
            "naïve",
            "Straße",
            "мир",
            "世界",
            "١٢",
            "for(i=0;",
            "def",
            "self.",
            "==",
            "<b>",
            "don't",
            "🙂",
        ]
    ]
    words += ["".join(rng.choices("abcdefghij", k=rng.randint(1, 9))) for _ in range(3000)]
    words += [*AWKWARD, "\n\n    ", "\r\n", "\t"]
    out, size = [], 0
    while size < n:
        out.append(rng.choice(words) + rng.choice([" ", " ", " ", "\n", ", ", ""]))
        size += len(out[-1])
    return "".join(out)


@pytest.fixture(scope="module", params=["gpt2", "gpt4", "llama3", "none", r" ?\w+|\s+|[^\w\s]"])
def trained(request):
    text = mixed(30_000, seed=1).replace(END, "")
    return BPETokenizer.train([text], 900, special_tokens=[END, "<|pad|>"], pattern=request.param)


@pytest.fixture(scope="module")
def tiktoken_of(trained):
    pytest.importorskip("tiktoken")
    return trained.to_tiktoken()


@pytest.fixture(scope="module")
def hf_of(trained, tmp_path_factory):
    tokenizers = pytest.importorskip("tokenizers")
    path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
    trained.save_hf(path)
    return tokenizers.Tokenizer.from_file(str(path))


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_tiktoken_gives_our_ids(trained, tiktoken_of, text):
    assert trained.encode(text) == tiktoken_of.encode_ordinary(text)
    want = tiktoken_of.encode(text, allowed_special="all")
    assert trained.encode(text, allowed_special="all") == want


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_tokenizers_gives_our_ids(trained, hf_of, text):
    assert trained.encode(text, allowed_special="all") == hf_of.encode(text).ids


def test_a_long_text_with_special_tokens(trained, tiktoken_of, hf_of):
    text = mixed(200_000 if trained.pattern == "none" else 1_000_000)
    ids = trained.encode(text, allowed_special="all")
    assert trained.special_tokens[END] in ids
    assert ids == tiktoken_of.encode(text, allowed_special="all")
    assert ids == hf_of.encode(text).ids
    assert trained.decode(ids) == text == tiktoken_of.decode(ids)
    assert hf_of.decode(ids, skip_special_tokens=False) == text


@pytest.mark.slow
def test_ten_megabytes(tmp_path):
    pytest.importorskip("tiktoken")
    tokenizers = pytest.importorskip("tokenizers")
    text = mixed(10_000_000, seed=2)
    tok = BPETokenizer.train([text[:1_000_000]], 5000)
    ids = tok.encode(text, allowed_special="all")
    assert tok.special_tokens[END] in ids
    assert ids == tok.to_tiktoken().encode(text, allowed_special="all")
    tok.save_hf(tmp_path / "tokenizer.json")
    assert ids == tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids


@pytest.fixture(scope="module")
def gpt2():
    return BPETokenizer.from_gpt2(shared("gpt2/vocab.json"), shared("gpt2/merges.txt"))


@pytest.fixture(scope="module")
def tiktoken_gpt2():
    """Built from the same files without our code, but for the table of letters."""
    tiktoken = pytest.importorskip("tiktoken")
    ids = json.loads(shared("gpt2/vocab.json").read_text("utf-8"))
    special = {END: ids.pop(END)}
    byte = {letter: bytes([b]) for b, letter in LETTER.items()}
    ranks = {b"".join(byte[c] for c in token): i for token, i in ids.items()}
    split = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    return tiktoken.Encoding("gpt2", pat_str=split, mergeable_ranks=ranks, special_tokens=special)


def test_gpt2_by_hand(gpt2):
    assert gpt2.vocab_size == 50257
    assert gpt2.special_tokens == {END: 50256}
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.encode("a" + END, allowed_special="all") == [64, 50256]


@settings(deadline=None)
@given(text=texts)
def test_gpt2_gives_the_ids_of_tiktoken(gpt2, tiktoken_gpt2, text):
    assert gpt2.encode(text) == tiktoken_gpt2.encode_ordinary(text)


@pytest.mark.parametrize("text", AWKWARD)
def test_gpt2_on_awkward_strings(gpt2, tiktoken_gpt2, text):
    assert gpt2.encode(text) == tiktoken_gpt2.encode_ordinary(text)
    assert gpt2.decode(gpt2.encode(text)) == text


def test_gpt2_on_every_shared_text(gpt2, tiktoken_gpt2):
    for path in shared_texts():
        text = path.read_bytes().decode("utf-8")
        assert gpt2.encode(text) == tiktoken_gpt2.encode_ordinary(text), path


def test_gpt2_survives_our_own_file(gpt2, tmp_path):
    gpt2.save(tmp_path / "gpt2.json")
    back = BPETokenizer.load(tmp_path / "gpt2.json")
    assert (back.vocab, back.merges) == (gpt2.vocab, gpt2.merges)


def test_letters_are_gpt2s_own():
    assert spelt(b" the\n") == "ĠtheĊ"
    assert unspelt("ĠtheĊ") == b" the\n"
    assert len(set(LETTER.values())) == 256


def small_files(tmp_path, merges="#version: 0.2\na b\n", extra=None):
    ids = {LETTER[b]: b for b in range(256)} | {"ab": 256, END: 257} | (extra or {})
    (tmp_path / "vocab.json").write_text(json.dumps(ids), "utf-8")
    (tmp_path / "merges.txt").write_text(merges, "utf-8")
    return tmp_path / "vocab.json", tmp_path / "merges.txt"


def test_from_gpt2_in_small(tmp_path):
    tok = BPETokenizer.from_gpt2(*small_files(tmp_path))
    assert tok.merges == [(b"a", b"b")]
    assert tok.encode("cab" + END, allowed_special="all") == [99, 256, 257]
    more = BPETokenizer.from_gpt2(*small_files(tmp_path), special_tokens=["<|a|>", END, "<|b|>"])
    assert more.special_tokens == {END: 257, "<|a|>": 258, "<|b|>": 259}
    with pytest.raises(ValueError, match=r"one string; give \['<x>'\]"):
        BPETokenizer.from_gpt2(*small_files(tmp_path), special_tokens="<x>")


@pytest.mark.parametrize(
    ("merges", "says"),
    [
        ("a b c\n", r"merges.txt: line 1 is 'a b c', not two tokens"),
        ("a b\na \u4e16\n", "writes for no byte"),
        ("a c\n", "'ac'"),
        ("ab a\n", "no earlier merge makes"),
    ],
)
def test_from_gpt2_refuses(tmp_path, merges, says):
    with pytest.raises(ValueError, match=says):
        BPETokenizer.from_gpt2(*small_files(tmp_path, merges))


def test_from_gpt2_refuses_another_json(tmp_path):
    files = small_files(tmp_path)
    for text in ("[1]", "{", '{"a": "b"}', '{"a": Infinity}', "[" * 100_000):
        files[0].write_text(text, "utf-8")
        with pytest.raises(ValueError, match=r"vocab.json: not a vocab.json"):
            BPETokenizer.from_gpt2(*files)


def test_save_hf_needs_no_package(trained, tmp_path):
    trained.save_hf(tmp_path / "tokenizer.json")
    found = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    ids = found["model"]["vocab"]  # special tokens, too: tokenizers numbers those anew that lack
    assert sorted(ids.values()) == list(range(trained.vocab_size))
    assert found["added_tokens"][0]["content"] == END
    assert all(ids[token["content"]] == token["id"] for token in found["added_tokens"])


def test_tiktoken_is_refused_what_it_cannot_tell():
    pytest.importorskip("tiktoken")
    BYTES = {i: bytes([i]) for i in range(256)}
    merges = [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc")]
    tok = BPETokenizer({**BYTES, 256: b"ab", 257: b"bc", 258: b"abc"}, merges)
    with pytest.raises(ValueError, match="spell the same bytes"):
        tok.to_tiktoken()
    tok = BPETokenizer({**BYTES, 257: b"ab", 256: b"bc"}, [(b"a", b"b"), (b"b", b"c")])
    with pytest.raises(ValueError, match="rise with the merges"):
        tok.to_tiktoken()


def test_tokenizers_agrees_where_two_merges_spell_the_same_bytes(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    merges = [(b"b", b"c"), (b"a", b"b"), (b"ab", b"c"), (b"abc", b"a"), (b"a", b"bc")]
    vocab = {i: bytes([i]) for i in range(256)}
    vocab |= dict(enumerate([b"bc", b"ab", b"abc", b"abca"], 256))
    tok = BPETokenizer(vocab, merges, pattern="none")
    tok.save_hf(tmp_path / "t.json")
    peer = tokenizers.Tokenizer.from_file(str(tmp_path / "t.json"))
    rng = random.Random(0)
    for _ in range(300):
        text = "".join(rng.choices("abc", k=rng.randint(0, 30)))
        assert tok.encode(text) == peer.encode(text).ids


def test_tokenizers_is_refused_a_pattern_that_it_reads_otherwise(tmp_path):
    """cl100k's own {1,3}+ came back with all the digits of a number as one word."""
    tok = BPETokenizer.train(["1234"], 256, special_tokens=(), pattern=r"\d{1,3}+|\D")
    with pytest.raises(ValueError, match=r"write \(\?>"):
        tok.save_hf(tmp_path / "t.json")
    assert not list(tmp_path.iterdir())
