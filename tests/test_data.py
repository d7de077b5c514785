"""data/: from a text file to batches."""

import hashlib
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_text
from hypothesis import given
from hypothesis import strategies as st

from data import prepare
from data.loader import batch_at, check_length, open_prepared, ordered_batches
from data.prepare import END, prepared, split_text, write_prepared

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


def test_split_is_nanogpts():
    text = "".join(map(str, range(1000)))
    train, val = split_text(text)
    assert train == text[: int(0.9 * len(text))]
    assert train + val == text


def test_split_waits_for_the_end_of_a_document():
    """Also when the tenth begins within a separator, as it does for the second text."""
    for b, c in (20, 5), (12, 2):
        text = "a" * 8 * b + "\n\n" + "b" * b + "\n\n" + "c" * c
        train, val = split_text(text, "\n\n", share=(c + 1) / len(text))
        assert val == "c" * c
        assert train + val == text
    assert split_text("a" * 80 + "\n\n" + "b" * 20 + "\n\n" + "c" * 5, "\n\n")[1] == "ccccc"


@given(st.text(min_size=1), st.sampled_from(["", "\n\n", END]))
def test_split_loses_nothing(text, sep):
    assert "".join(split_text(text, sep)) == text


def test_prepared_directory(tmp_path):
    text = make_text()
    train, val = split_text(text)
    meta = write_prepared(tmp_path / "p", train, val, tokenizer="char")
    data = open_prepared(tmp_path / "p")
    assert data.tokenizer.decode(data.train) == train
    assert data.tokenizer.decode(data.val) == val
    assert data.train.dtype == np.uint16
    assert meta["train_tokens"] == len(train)
    assert meta["val_bytes"] == len(val.encode())
    assert meta["documents"] == 1
    assert meta["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p"]  # no temporary stays behind


def test_each_document_ends_with_its_mark(tmp_path):
    write_prepared(tmp_path / "p", "one\n\ntwo\n\n", "three", vocab=257, doc_sep="\n\n")
    data = open_prepared(tmp_path / "p")
    end = data.tokenizer.special_tokens[END]
    assert data.meta["documents"] == 3
    assert data.tokenizer.decode(data.train) == f"one{END}two{END}"
    assert list(data.val) == [*data.tokenizer.encode("three"), end]


def test_the_mark_in_a_single_document_is_not_injected(tmp_path):
    """A text without separators is encoded as it is: no id of <|endoftext|> anywhere."""
    write_prepared(tmp_path / "p", "abc " * 50, "abc", vocab=258, doc_sep="")
    data = open_prepared(tmp_path / "p")
    assert data.tokenizer.special_tokens[END] not in data.train


def test_characters_of_validation_have_ids(tmp_path):
    write_prepared(tmp_path / "p", "aab", "xyz", tokenizer="char")
    assert open_prepared(tmp_path / "p").tokenizer.vocab_size == 5


def test_wide_vocabulary_takes_four_bytes(tmp_path):
    text = "".join(map(chr, [*range(32, 55000), *range(57344, 70000)]))
    write_prepared(tmp_path / "p", text, "abc", tokenizer="char")
    data = open_prepared(tmp_path / "p")
    assert data.train.dtype == np.uint32
    assert data.train.max() > 2**16
    assert data.tokenizer.decode(data.train) == text


def test_cache_is_keyed_by_all_that_shapes_the_tokens(text_file):
    first = prepared(text_file, vocab=260)
    written = (first / "train.bin").stat().st_mtime_ns
    assert prepared(text_file, vocab=260) == first
    assert (first / "train.bin").stat().st_mtime_ns == written  # not made again
    assert prepared(text_file, vocab=261) != first
    assert prepared(text_file, vocab=260, doc_sep="\n") != first
    assert prepared(text_file, tokenizer="char") != first
    text_file.write_text(make_text() + "!", encoding="utf-8")
    assert prepared(text_file, vocab=260) != first


def test_cache_notices_a_retrained_tokenizer(text_file, tmp_path):
    """The path of a tokenizer stays while its content changes: the content is in the key."""
    a, b = (open_prepared(prepared(text_file, vocab=v)).path / "tokenizer.json" for v in (260, 270))
    chosen = tmp_path / "chosen.json"
    chosen.write_bytes(a.read_bytes())
    first = prepared(text_file, tokenizer=str(chosen))
    chosen.write_bytes(b.read_bytes())
    second = prepared(text_file, tokenizer=str(chosen))
    assert first != second
    assert open_prepared(second).tokenizer.vocab_size == 270


def test_a_killed_preparation_leaves_nothing_that_counts(text_file, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "replace_dir", die)
    with pytest.raises(KeyboardInterrupt):
        prepared(text_file)
    assert list(prepare.CACHE.iterdir()) == []


def test_byte_order_mark_and_crlf(tmp_path):
    """Text as Windows writes it: neither the mark nor the \\r becomes a token."""
    path = tmp_path / "w.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert prepare.read_text(path) == "one\ntwo\n"


@pytest.mark.skipif(not SHARED.exists(), reason="real texts are not here")
def test_grimm_as_it_is():
    data = open_prepared(prepared(SHARED / "grimm.txt", tokenizer="char"))
    assert "\ufeff" not in data.tokenizer.vocab.values()
    assert "\r" not in data.tokenizer.vocab.values()


@pytest.mark.skipif(not SHARED.exists(), reason="real texts are not here")
def test_shakespeare_by_characters_is_nanogpts(tmp_path):
    out = tmp_path / "s"
    args = ["shakespeare", "--from", str(SHARED / "tinyshakespeare.txt"), "--tokenizer", "char"]
    prepare.main([*args, "--out", str(out)])
    data = open_prepared(out)
    assert (data.meta["train_tokens"], data.meta["val_tokens"]) == (1_003_854, 111_540)
    assert data.meta["vocab_size"] == 65


def test_wikitext_comes_as_a_zip_with_its_own_split(tmp_path, monkeypatch):
    path = tmp_path / "w.zip"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("train", "to learn from " * 20)
        z.writestr("valid", "to be judged by")
    source = prepare.Source("", hashlib.sha256(path.read_bytes()).hexdigest(), ("train", "valid"))
    monkeypatch.setitem(prepare.SOURCES, "wikitext2", source)
    prepare.main(["wikitext2", "--from", str(path), "--tokenizer", "char", "--out", "w"])
    data = open_prepared("w")
    assert data.tokenizer.decode(data.val) == "to be judged by"


def test_download_is_checked_and_kept(tmp_path, monkeypatch):
    page = tmp_path / "page"
    page.write_bytes(b"the text " * 50)
    good = hashlib.sha256(page.read_bytes()).hexdigest()
    monkeypatch.setattr(prepare, "DOWNLOADS", tmp_path / "d")
    monkeypatch.setitem(prepare.SOURCES, "shakespeare", prepare.Source(page.as_uri(), "0" * 64))
    with pytest.raises(ValueError, match="sha256"):
        prepare.fetch("shakespeare")
    assert not (tmp_path / "d").exists()
    monkeypatch.setitem(prepare.SOURCES, "shakespeare", prepare.Source(page.as_uri(), good))
    got = prepare.fetch("shakespeare")
    page.unlink()
    assert prepare.fetch("shakespeare") == got  # from the disk now
    assert got.read_bytes() == b"the text " * 50


def test_no_network_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "DOWNLOADS", tmp_path / "d")
    nowhere = prepare.Source((tmp_path / "missing").as_uri(), "0" * 64)
    monkeypatch.setitem(prepare.SOURCES, "shakespeare", nowhere)
    with pytest.raises(ValueError, match=r"cannot download .*--from FILE"):
        prepare.fetch("shakespeare")


def test_several_files_are_documents(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(f"file {name} " * 30, encoding="utf-8")
    prepare.main(["a", "b", "--vocab", "260", "--out", "two"])
    data = open_prepared("two")
    assert data.meta["documents"] == 2
    cut = data.tokenizer.decode(data.train)
    assert cut.startswith("file a " * 30 + END + "file b")
    assert cut.count(END) == 1  # the second file goes on in validation, so it does not end here
    assert data.tokenizer.decode(data.val).endswith("file b " + END)
    prepare.main(["a", "--vocab", "257", "--out", "two"])  # prepared data may be replaced
    assert open_prepared("two").meta["documents"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n \n", "is empty"),
        (b"caf\xe9 " * 9, "byte 3"),
        (b"ELF\0\0\0", "is binary"),
    ],
)
def test_bad_files(tmp_path, error_of, content, said):
    (tmp_path / "bad").write_bytes(content)
    assert said in error_of(prepare.main, "bad", "--out", "o")
    assert not (tmp_path / "o").exists()


def test_bad_arguments(tmp_path, error_of, text_file):
    (tmp_path / "dir").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep", encoding="utf-8")
    (tmp_path / "full" / "meta.json").write_text("{}", encoding="utf-8")  # not ours alone
    main = prepare.main
    assert "missing.txt" in error_of(main, "missing.txt", "--out", "o")
    assert "is a directory" in error_of(main, "dir", "--out", "o")
    assert "holds other files" in error_of(main, text_file, "--out", "full")
    assert "is a file" in error_of(main, text_file, "--out", text_file)
    assert "holds other files" in error_of(main, text_file, "--out", ".")
    assert "--vocab" in error_of(main, text_file, "--vocb", "300", "--out", "o")
    assert "256" in error_of(main, text_file, "--vocab", "100", "--out", "o")
    assert "neither char nor bpe" in error_of(main, text_file, "--tokenizer", "bpx", "--out", "o")
    assert "--from goes with" in error_of(main, text_file, "--from", text_file, "--out", "o")
    assert "another text" in error_of(main, "shakespeare", "--from", text_file, "--out", "o")
    assert not (tmp_path / "o").exists()
    assert (tmp_path / "full" / "mine").read_text(encoding="utf-8") == "keep"


def test_damaged_directories_are_refused(text_file):
    path = prepared(text_file)
    (path / "val.bin").write_bytes(b"\0")
    with pytest.raises(ValueError, match=r"val\.bin has 1 bytes"):
        open_prepared(path)
    (path / "val.bin").unlink()
    with pytest.raises(ValueError, match="not whole prepared data"):
        open_prepared(path)
    meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    (path / "meta.json").write_text(json.dumps({**meta, "version": 99}), encoding="utf-8")
    with pytest.raises(ValueError, match="format 99"):
        open_prepared(path)
    (path / "meta.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="not whole prepared data"):
        open_prepared(path)
    with pytest.raises(ValueError, match=r"no meta\.json"):
        prepared(text_file.parent)


def test_batch_is_windows_of_the_text_shifted_by_one():
    tokens = np.arange(1000, dtype=np.uint16)
    x, y = batch_at(tokens, 3, block_size=8, batch_size=5, seed=1)
    assert x.shape == y.shape == (5, 8)
    assert x.dtype == torch.int64
    assert torch.equal(y, x + 1)
    assert torch.equal(x - x[:, :1], torch.arange(8).expand(5, 8))


def test_batch_is_a_pure_function_of_step_and_seed():
    tokens = np.arange(1000, dtype=np.uint16)

    def at(step, seed):
        return batch_at(tokens, step, block_size=4, batch_size=3, seed=seed)[0]

    assert torch.equal(at(7, 1), at(7, 1))
    assert not torch.equal(at(7, 1), at(8, 1))
    assert not torch.equal(at(7, 1), at(7, 2))


def test_batches_reach_both_ends_of_the_text():
    tokens = np.arange(12, dtype=np.uint16)
    seen = torch.cat(
        [batch_at(tokens, i, block_size=4, batch_size=9, seed=0)[1] for i in range(30)]
    )
    assert seen.min() == 1
    assert seen.max() == 11


def test_the_shortest_text_that_fits():
    tokens = np.arange(5, dtype=np.uint16)
    x, _ = batch_at(tokens, 0, block_size=4, batch_size=2, seed=0)
    assert x.tolist() == [[0, 1, 2, 3]] * 2
    short = SimpleNamespace(train=tokens[:4], val=tokens)
    with pytest.raises(ValueError, match="--block_size 3 or less"):
        check_length(short, 4)
    with pytest.raises(ValueError, match=r"a\.txt: the validation text has 1 tokens; give"):
        check_length(SimpleNamespace(train=tokens, val=tokens[:1], meta={"name": "a.txt"}))


@given(st.integers(2, 60), st.integers(1, 7), st.integers(1, 4))
def test_ordered_batches_cover_each_target_once(n, block_size, batch_size):
    tokens = np.arange(n, dtype=np.uint16)
    x, y = (
        torch.cat(parts)
        for parts in zip(
            *ordered_batches(tokens, block_size=block_size, batch_size=batch_size), strict=True
        )
    )
    assert y[y >= 0].tolist() == list(range(1, n))
    assert torch.equal(x[y >= 0] + 1, y[y >= 0])
