"""data/text.py: streams of chunks give what the whole text in memory gave."""

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import text as t
from data.text import END_OF_TEXT, split_documents, split_text

# The second implementation: what 0.1.0 did, with all of the text in memory.


def old_clean(raw):
    return raw.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def old_documents(text, doc_sep):
    return [d for d in text.split(doc_sep) if d.strip()] if doc_sep else [text]


def old_split_text(text, doc_sep, share=0.1):
    cut = int(len(text) * (1 - share))
    border = text.find(doc_sep, max(0, cut - len(doc_sep) + 1)) if doc_sep else -1
    if border >= 0 and text[border + len(doc_sep) :].strip():
        cut = border + len(doc_sep)
    return text[:cut], text[cut:]


def old_split_documents(text, doc_sep, share=0.1):
    parts = ([], [])
    for doc in old_documents(text, doc_sep):
        digest = hashlib.sha256(doc.strip().encode()).hexdigest()
        parts[int(digest[:12], 16) < share * 16**12].append(doc)
    if not all(parts):
        return None
    return tuple(doc_sep.join(part) + doc_sep for part in parts)


SEPS = ["", "\n\n", "aa", "aba", END_OF_TEXT]
PIECES = ["a", "b", "ab", " ", "\n", "\n\n", "\x1c", "é", "🙂", "<|", "of", END_OF_TEXT]
texts = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


def in_chunks(text, size):
    return [text[i : i + size] for i in range(0, len(text), size)]


def joined(parts):
    return tuple("".join(part) for part in parts)


@given(texts, st.sampled_from(SEPS), st.integers(1, 50))
def test_documents(text, sep, size):
    chunks = in_chunks(text, size)
    assert ["".join(doc) for doc in t.documents(chunks, sep)] == old_documents(text, sep)
    assert len(list(t.documents(chunks, sep))) == len(old_documents(text, sep))  # none read


@given(texts, st.sampled_from(SEPS), st.integers(1, 50), st.sampled_from([0.1, 0.5]))
def test_splits(text, sep, size, share):
    chunks = in_chunks(text, size)
    assert joined(split_text(chunks, sep, share)) == old_split_text(text, sep, share)
    wanted = old_split_documents(text, sep, share)
    if wanted:
        parts = split_documents(chunks, sep, share)
        assert joined(parts) == joined(parts) == wanted  # also when it is read again
    else:
        with pytest.raises(ValueError, match="too few to split by document"):
            split_documents(chunks, sep, share)


@given(
    st.lists(st.sampled_from(["a", "é", "🙂", "\r", "\n", "\r\n", "\ufeff"])).map("".join),
    st.integers(1, 50),
)
def test_clean(text, size):
    raw = (text + "x").encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tok.files.BLOCK", size)
        assert "".join(t.clean(io.BytesIO(raw), "x")) == old_clean(raw)


@given(texts, st.text(min_size=1, max_size=3), st.integers(0, 70), st.integers(1, 50))
def test_part_and_find(text, what, at, size):
    chunks = in_chunks(text, size)
    assert "".join(t.part(chunks, at)) == text[at:]
    assert "".join(t.part(chunks, at, at + 7)) == text[at : at + 7]
    for sought in what, "aba", "\n\n":
        assert t.find(chunks, sought, at) == text.find(sought, at)


def test_join():
    assert "".join(t.join([["a", "b"], ["c"]], "--")) == "ab--c"


def test_split_is_nanogpts():
    text = "".join(map(str, range(1000)))
    train, val = joined(split_text([text]))
    assert train == text[: int(0.9 * len(text))]
    assert train + val == text


def test_split_waits_for_the_end_of_a_document():
    """Also when the tenth begins within a separator, as it does for the second text."""
    for b, c in (20, 5), (12, 2):
        text = "a" * 8 * b + "\n\n" + "b" * b + "\n\n" + "c" * c
        train, val = joined(split_text([text], "\n\n", share=(c + 1) / len(text)))
        assert val == "c" * c
        assert train + val == text
    text = "a" * 80 + "\n\n" + "b" * 20 + "\n\n" + "c" * 5
    assert joined(split_text([text], "\n\n"))[1] == "ccccc"


def test_byte_order_mark_and_crlf(tmp_path):
    """Text as Windows writes it: neither the mark nor the \\r becomes a token."""
    path = tmp_path / "w.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert t.read_text(path) == "one\ntwo\n"


@pytest.mark.parametrize(
    "head", [b"", b"\xef\xbb\xbf", b"ab\r\n" * 400_000, "é".encode() * 600_000]
)
def test_offsets_are_those_of_the_file(tmp_path, head):
    """In bytes, also in the second block, after a byte-order mark or after \\r\\n."""
    path = tmp_path / "bad"
    path.write_bytes(head + b"abc\0")
    with pytest.raises(ValueError, match=rf"bad is binary \(NUL at offset {len(head) + 3}\)"):
        t.read_text(path)
    path.write_bytes(head + b"abc\xff")
    with pytest.raises(ValueError, match=rf"not UTF-8 at byte {len(head) + 3}"):
        t.read_text(path)


def test_split_by_document(tmp_path):
    """About a tenth; equal documents on one side; a longer text moves none."""
    docs = [f"story {i % 500} of many" for i in range(1000)]
    train, val = (
        part.split("\n\n")[:-1] for part in joined(split_documents(["\n\n".join(docs)], "\n\n"))
    )
    assert sorted(train + val) == sorted(docs)
    assert not set(train) & set(val)
    assert 60 <= len(val) <= 140
    more = joined(split_documents(["\n\n".join([*docs, "a new one"])], "\n\n"))[1].split("\n\n")
    assert set(val) <= set(more)
