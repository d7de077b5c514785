"""The tokenizer of an exported page gives the ids of tok/, whatever the text."""

from pathlib import Path

import pytest
import regex
from html_pages import make_run, model, needs_node, scripts_of, with_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tok import BPETokenizer, CharTokenizer
from tok.bpe.pretokenize import PATTERNS
from utils.hub.__main__ import main
from utils.hub.html import SPLITS, ranges, tokenizer_data

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
TINY = (ROOT / "data" / "tiny.txt").read_text(encoding="utf-8")
AWKWARD = (
    "aZé漢1²½ \t\n\r\x0b\x1c\x85\xa0\u2028\u3000'sſtlLRE\u0301_-,.!🙂\u200d\u05d0\u0627\0\ufeff"
)
SPECIAL = ["<|endoftext|>", "</script>"]
HAND = [
    *("", " ", "\n\n", "  x", "x  ", "a\r\n b", "12345 1²½", "日本語 text", "\ufeffBOM"),
    *("It's WE'LL they'Re 'ſa O'\u017fb 'Sx", "🙂🙂\u200d🙂 é e\u0301", "\x85\x1c"),
    *("<|endoftext|> </script> <|endof", "x" * 300, " " * 50 + "a"),
]
BROKEN = "ab \ud83d cd \udc00 \ud83d\ude42 e\ud83d"  # halves of pairs, and one whole


def export(tok):
    """Export a small model with this tokenizer; the file."""
    make_run("runs/a", model(vocab_size=tok.vocab_size, n_layer=1), tok)
    main(["export", "a", "--to", "html", "a.html"])
    return "a.html"


def bpe(pattern, text=TINY[:40_000], vocab=400):
    return BPETokenizer.train([text], vocab, special_tokens=SPECIAL, pattern=pattern)


ENCODE = "return given.map((text) => tokenizer.encode(text));"
WORDS = "return given.map((text) => [tokenizer.encode(text), text.match(tokenizer.pattern) || []]);"
THERE_AND_BACK = """return given.map((text) => {
  const ids = tokenizer.encode(text);
  return [ids, tokenizer.decode(ids), ids.map((_, n) => tokenizer.decodeStream(ids.slice(0, n)))];
});"""


def texts_of(pattern):
    """Many texts at once: node starts once for all of them."""
    found = []

    @settings(max_examples=200, database=None, suppress_health_check=list(HealthCheck))
    @given(st.text(st.sampled_from(AWKWARD), max_size=40) | st.text(max_size=40))
    def collect(text):
        found.append(text)

    collect()
    return found


@needs_node
@pytest.mark.parametrize("pattern", SPLITS)
def test_ids_and_words_are_those_of_python(pattern):
    mixed = TINY[:20_000] + "naïve 漢字 🙂 " * 50
    tok = bpe(pattern, mixed)
    texts = [*HAND, *texts_of(pattern), TINY[: 3_000 if pattern == "none" else None]]
    for name in ("grimm.txt", "wikitext2-test.txt") if SHARED.exists() else ():
        if pattern != "none":
            texts.append((SHARED / name).read_text(encoding="utf-8")[:100_000])
    found = with_tokenizer(export(tok), WORDS, texts)
    for text, (ids, words) in zip(texts, found, strict=True):
        assert ids == tok.encode(text), text[:80]
        assert words == regex.findall(PATTERNS[pattern], text)


@needs_node
@pytest.mark.parametrize("pattern", [p for p in SPLITS if p != "none"])
def test_letters_digits_and_spaces_are_those_of_python(pattern):
    """At both edges of each range, as Python knows it: a browser's Unicode does not count."""
    edges = {
        c + d for kind in (r"\p{L}", r"\p{N}", r"\s") for c in ranges(kind) for d in (-1, 0, 1)
    }
    chars = [chr(i) for i in sorted(edges) if not 0xD800 <= i < 0xE000]
    texts = [f"a{c}1 {c}'{c}" for c in chars]
    body = "return given.map((text) => text.match(tokenizer.pattern));"
    found = with_tokenizer(export(bpe(pattern, vocab=300)), body, texts)
    expression = regex.compile(PATTERNS[pattern])
    assert found == [expression.findall(text) for text in texts]


def test_a_page_splits_as_python_does_or_not_at_all():
    """A pattern that only Python had gave other words, and pages that did not say so."""
    for pattern in {*PATTERNS} - {*SPLITS}:
        with pytest.raises(ValueError, match=f"can't split words by '{pattern}'"):
            tokenizer_data(bpe(pattern, vocab=300))


@needs_node
def test_text_comes_back_and_halves_of_surrogate_pairs_do_not():
    tok = bpe("gpt2")
    texts = [*HAND, *texts_of("gpt2"), BROKEN]
    given = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
    found = with_tokenizer(export(tok), THERE_AND_BACK, texts)
    for text, clean, (ids, back, begun) in zip(texts, given, found, strict=True):
        if text != BROKEN:
            assert back == clean == text
        assert ids == tok.encode(back)
        for n, start in enumerate(begun):
            assert back.startswith(start)
            assert tok.decode(ids[:n]).rstrip("\ufffd").startswith(start.rstrip("\ufffd"))
    assert found[-1][1] == "ab \ufffd cd \ufffd 🙂 e\ufffd"


@needs_node
def test_characters_and_those_that_are_unknown():
    tok = CharTokenizer.train([TINY, "é漢🙂"], special_tokens=SPECIAL)
    texts = ["", TINY[:500], "é漢🙂<|endoftext|>".replace("|", ""), TINY[-100:]]
    texts = [text for text in texts if all(c in tok.chars for c in text)]
    assert len(texts) > 2
    page = export(tok)
    for text, (ids, back, _) in zip(
        texts, with_tokenizer(page, THERE_AND_BACK, texts), strict=True
    ):
        assert (ids, back) == (tok.encode(text), text)
    body = "try { tokenizer.encode(given); } catch (error) { return error.message; }"
    assert "“ж” (U+0436) was not in the text" in with_tokenizer(page, body, "ab ж")


@needs_node
def test_a_merge_list_that_is_not_sound_and_bytes_that_are_missing():
    """From elsewhere: two merges that spell the same, and a vocabulary without the byte of %."""
    merges = [(b"b", b"c"), (b"a", b"b"), (b"ab", b"c"), (b"a", b"bc"), (b"c", b"c")]
    tokens = [bytes([i]) for i in range(256) if i != ord("%")]
    tokens += [b"bc", b"ab", b"abc", b"cc"]
    tok = BPETokenizer(dict(enumerate(tokens)), merges)
    texts = ["abc", "abcc abccc", "aabbcc", "bcabcbc"]
    page = export(tok)
    assert with_tokenizer(page, ENCODE, texts) == [tok.encode(text) for text in texts]
    body = "try { tokenizer.encode(given); } catch (error) { return error.message; }"
    assert "no token for byte 37 of “%”" in with_tokenizer(page, body, "a%")


def test_a_pattern_of_ones_own_is_refused(error_of):
    make_run("runs/a", model(vocab_size=300), bpe(r"\w+|\W", vocab=300))
    assert r"can't split words by '\\w+|\\W'; known: gpt2" in error_of(
        main, "export", "a", "--to", "html", "a.html"
    )


def test_a_vocabulary_cannot_end_the_script_that_holds_it():
    page = scripts_of(export(bpe("gpt2")))
    assert set(page.named) == {"header", "weights", "worker"}
    assert len(page.plain) == 4
    assert "</script>" not in "".join(page.named.values())
