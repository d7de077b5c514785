"""data/prepare.py, data/encode.py, data/download.py: from text files to a prepared directory."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import make_text, shared
from hypothesis import given, settings
from hypothesis import strategies as st

import tok
from data import download, hashes, prepare, store
from data.mixture import open_mixture
from data.prepare import prepared, write_prepared
from data.store import open_dataset
from data.text import END_OF_TEXT, split_text


def old_prepare(train, val, doc_sep, tokenizer="bpe", vocab=1000):
    """What 0.1.0 wrote, with text and ids in memory: (train.bin, val.bin, tokenizer, meta)."""

    def divide(text):
        return [d for d in text.split(doc_sep) if d.strip()] if doc_sep else [text]

    def encode(text, cut):
        ids = []
        for doc in divide(text):
            ids += made.encode(doc) + ([made.special_tokens[END_OF_TEXT]] if ends else [])
        return np.array(ids[:-1] if ends and cut else ids, dtype).tobytes()

    parts = [divide(text) for text in (train, val)]
    ends = len(divide(train + val)) > 1
    if tokenizer == "char":
        specials = (END_OF_TEXT,) if ends else ()
        made = tok.CharTokenizer(sorted(set("".join([*parts[0], *parts[1]]))), specials)
    else:
        made = tok.BPETokenizer.train(parts[0], vocab, special_tokens=(END_OF_TEXT,))
    dtype = np.uint16 if made.vocab_size <= 2**16 else np.uint32
    n = len(divide(train + val))
    cut = sum(map(len, parts)) > n  # a document on both sides, and not only blank text
    meta = {
        "documents": n if ends else 1,
        "train_bytes": len(train.encode()),
        "val_bytes": len(val.encode()),
        "text_sha256": hashlib.sha256((train + val).encode()).hexdigest(),
    }
    return encode(train, cut), encode(val, False), made, meta


PIECES = ["a", "b", "ab ", " ", "\n", "\n\n", "é", "word ", "<|", END_OF_TEXT]
texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=60).map("".join)


@settings(max_examples=60, deadline=None)
@given(
    texts,
    texts,
    st.sampled_from(["", "\n\n", "ab", END_OF_TEXT]),
    st.integers(1, 50),
    st.sampled_from(["char", "bpe"]),
)
def test_files_are_those_of_the_text_in_memory(tmp_path_factory, train, val, sep, size, kind):
    out = tmp_path_factory.mktemp("p") / "p"
    splits = [[text[i : i + size] for i in range(0, len(text), size)] for text in (train, val)]
    try:
        want = old_prepare(train, val, sep, kind, 262)
    except ValueError as e:
        with pytest.raises(ValueError, match=re.escape(str(e))):
            write_prepared(out, *splits, tokenizer=kind, vocab=262, doc_sep=sep)
        return
    meta = write_prepared(out, *splits, tokenizer=kind, vocab=262, doc_sep=sep)
    assert (out / "train.bin").read_bytes() == want[0]
    assert (out / "val.bin").read_bytes() == want[1]
    want[2].save(out / "wanted.json")
    assert (out / "tokenizer.json").read_bytes() == (out / "wanted.json").read_bytes()
    assert want[3].items() <= meta.items()


def test_prepared_directory(tmp_path):
    text = make_text()
    train, val = map(list, split_text([text]))
    meta = write_prepared(tmp_path / "p", train, val, tokenizer="char")
    data = open_dataset(tmp_path / "p")
    assert data.tokenizer.decode(data.train) == "".join(train)
    assert data.tokenizer.decode(data.val) == "".join(val)
    assert data.train.dtype == np.uint16
    assert meta["train_tokens"] == len("".join(train))
    assert meta["val_bytes"] == len("".join(val).encode())
    assert meta["documents"] == 1
    assert meta["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p"]  # no temporary stays behind


def test_each_document_ends_with_its_mark(tmp_path):
    write_prepared(tmp_path / "p", ["one\n\ntwo\n\n"], ["three"], vocab=257, doc_sep="\n\n")
    data = open_dataset(tmp_path / "p")
    end = data.tokenizer.special_tokens[END_OF_TEXT]
    assert data.meta["documents"] == 3
    assert data.tokenizer.decode(data.train) == f"one{END_OF_TEXT}two{END_OF_TEXT}"
    assert list(data.val) == [*data.tokenizer.encode("three"), end]


def test_the_mark_in_a_single_document_is_not_injected(tmp_path):
    """A text without separators is encoded as it is: no id of <|endoftext|> anywhere."""
    write_prepared(tmp_path / "p", ["abc " * 50], ["abc"], vocab=258, doc_sep="")
    data = open_dataset(tmp_path / "p")
    assert data.tokenizer.special_tokens[END_OF_TEXT] not in data.train


def test_characters_of_validation_have_ids(tmp_path):
    write_prepared(tmp_path / "p", ["aab"], ["xyz"], tokenizer="char")
    assert open_dataset(tmp_path / "p").tokenizer.vocab_size == 5


def test_wide_vocabulary_takes_four_bytes(tmp_path):
    text = "".join(map(chr, [*range(32, 55000), *range(57344, 70000)]))
    write_prepared(tmp_path / "p", [text], ["abc"], tokenizer="char")
    data = open_dataset(tmp_path / "p")
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
    a, b = (open_dataset(prepared(text_file, vocab=v)).path / "tokenizer.json" for v in (260, 270))
    chosen = tmp_path / "chosen.json"
    chosen.write_bytes(a.read_bytes())
    first = prepared(text_file, tokenizer=str(chosen))
    chosen.write_bytes(b.read_bytes())
    second = prepared(text_file, tokenizer=str(chosen))
    assert first != second
    assert open_dataset(second).tokenizer.vocab_size == 270


def test_a_killed_preparation_leaves_nothing_that_counts(text_file, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "replace_dir", die)
    with pytest.raises(KeyboardInterrupt):
        prepared(text_file)
    assert list(hashes.CACHE.iterdir()) == []


def test_grimm_as_it_is():
    data = open_dataset(prepared(shared("grimm.txt"), tokenizer="char"))
    assert "\ufeff" not in data.tokenizer.vocab.values()
    assert "\r" not in data.tokenizer.vocab.values()


def test_shakespeare_by_characters_is_nanogpts(tmp_path):
    out = tmp_path / "s"
    args = ["shakespeare", "--from", str(shared("tinyshakespeare.txt")), "--tokenizer", "char"]
    prepare.main([*args, "--out", str(out)])
    data = open_dataset(out)
    assert (data.meta["train_tokens"], data.meta["val_tokens"]) == (1_003_854, 111_540)
    assert data.meta["vocab_size"] == 65


def test_wikitext_comes_as_a_zip_with_its_own_split(tmp_path, monkeypatch):
    path = tmp_path / "w.zip"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("train", "to learn from " * 20)
        z.writestr("valid", "to be judged by")
    source = download.Source("", hashlib.sha256(path.read_bytes()).hexdigest(), ("train", "valid"))
    monkeypatch.setitem(download.SOURCES, "wikitext2", source)
    prepare.main(["wikitext2", "--from", str(path), "--tokenizer", "char", "--out", "w"])
    data = open_dataset("w")
    assert data.tokenizer.decode(data.val) == "to be judged by"


def test_download_is_checked_and_kept(tmp_path, monkeypatch):
    page = tmp_path / "page"
    page.write_bytes(b"the text " * 50)
    good = hashlib.sha256(page.read_bytes()).hexdigest()
    monkeypatch.setattr(download, "DOWNLOADS", tmp_path / "d")
    monkeypatch.setitem(download.SOURCES, "shakespeare", download.Source(page.as_uri(), "0" * 64))
    with pytest.raises(ValueError, match="sha256"):
        download.fetch("shakespeare")
    assert not (tmp_path / "d").exists()
    monkeypatch.setitem(download.SOURCES, "shakespeare", download.Source(page.as_uri(), good))
    got = download.fetch("shakespeare")
    page.unlink()
    assert download.fetch("shakespeare") == got  # from the disk now
    assert got.read_bytes() == b"the text " * 50


def test_no_network_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "DOWNLOADS", tmp_path / "d")
    nowhere = download.Source((tmp_path / "missing").as_uri(), "0" * 64)
    monkeypatch.setitem(download.SOURCES, "shakespeare", nowhere)
    with pytest.raises(ValueError, match=r"cannot download .*--from FILE"):
        download.fetch("shakespeare")


def test_several_files_are_documents(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(f"file {name} " * 30, encoding="utf-8")
    prepare.main(["a", "b", "--vocab", "260", "--out", "two"])
    data = open_dataset("two")
    assert data.meta["documents"] == 2
    cut = data.tokenizer.decode(data.train)
    assert cut.startswith("file a " * 30 + END_OF_TEXT + "file b")
    assert (
        cut.count(END_OF_TEXT) == 1
    )  # the second file goes on in validation, so it does not end here
    assert data.tokenizer.decode(data.val).endswith("file b " + END_OF_TEXT)
    prepare.main(["a", "--vocab", "257", "--out", "two"])  # prepared data may be replaced
    assert open_dataset("two").meta["documents"] == 1


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


def test_split_by_document_is_a_flag(tmp_path, error_of):
    (tmp_path / "d").write_text("\n\n".join(f"tale number {i}" for i in range(200)))
    prepare.main(
        ["d", "--doc_sep", "\\n\\n", "--split", "document", "--vocab", "260", "--out", "p"]
    )
    data = open_dataset("p")
    assert data.meta["documents"] == 200
    assert "tale number 199" in data.tokenizer.decode(data.train) + data.tokenizer.decode(data.val)
    said = error_of(prepare.main, "d", "--split", "document", "--out", "q")
    assert "1 documents are too few" in said


def test_a_damaged_cache_entry_is_made_again(text_file, capsys):
    path = prepared(text_file)
    good = (path / "val.bin").read_bytes()
    (path / "val.bin").write_bytes(b"\0")
    assert prepared(text_file) == path
    assert (path / "val.bin").read_bytes() == good
    assert "val.bin has 1 bytes" in capsys.readouterr().err


def test_what_a_killed_preparation_left_is_removed_after_a_day(tmp_path):
    old, new, foreign = (tmp_path / f".p-{name}" for name in ("old", "new", "foreign"))
    for path, file in (old, "train.bin"), (new, "train.bin"), (foreign, "mine"):
        path.mkdir()
        (path / file).write_text("x")
    for path in old, foreign:
        os.utime(path, (time.time() - 90000,) * 2)
    write_prepared(tmp_path / "p", [make_text()], [make_text(500)], tokenizer="char")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] == ".") == [
        ".p-foreign",
        ".p-new",
    ]


def test_the_caches_of_0_1_0_are_found_again(text_file):
    """The key is that of 0.1.0: a hash of format, text, tokenizer, vocabulary and separator."""
    text = text_file.read_text(encoding="utf-8")
    sums = [hashlib.sha256(part.encode()).hexdigest() for part in (text, "bpe")]
    key = json.dumps([1, *sums, 260, "\n\n"])
    name = f"my-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    assert prepared(text_file, vocab=260, doc_sep="\\n\\n") == hashes.CACHE / name


def settle(path):
    """Make a file old enough to be remembered."""
    os.utime(path, (time.time() - 60,) * 2)


def opened(monkeypatch, path):
    """A list that grows each time the file is opened to be read."""
    names, real = [], open
    path = str(path)

    def spy(name, *args, **more):
        if str(name) == path:
            names.append(name)
        return real(name, *args, **more)

    monkeypatch.setattr("builtins.open", spy)
    return names


def test_a_second_start_does_not_read_the_text(text_file, monkeypatch):
    """Each start read and hashed all of the text, only to find that it was prepared."""
    settle(text_file)
    first = prepared(text_file, vocab=260)
    for name in "train.bin", "val.bin":
        settle(first / name)
    prepared(text_file, vocab=260)
    seen = [opened(monkeypatch, p) for p in (text_file, first / "train.bin", first / "val.bin")]
    assert prepared(text_file, vocab=260) == first
    assert [len(names) for names in seen] == [0, 1, 1]  # ids are mapped, not read
    os.utime(text_file, (1, 1))  # touched
    assert prepared(text_file, vocab=260) == first
    assert len(seen[0]) == 1
    text_file.write_text(make_text()[:-1] + "!", encoding="utf-8")  # of the same size
    assert prepared(text_file, vocab=260) != first


def test_a_file_that_has_just_changed_is_not_remembered(text_file):
    """It may change once more before the file system's clock moves on, and look the same."""
    prepared(text_file)
    assert not (hashes.CACHE / "hashes.json").exists()


def test_remembered_hashes_may_be_damaged_or_not_writable(text_file, monkeypatch, tmp_path):
    settle(text_file)
    first = prepared(text_file)
    book = hashes.CACHE / "hashes.json"
    row = json.loads(book.read_text("utf-8"))
    for damage in "{", "[1]", '{"a": 1}', json.dumps({name: [0, 0] for name in row}), "\udcff":
        book.write_bytes(damage.encode("utf-8", "surrogateescape"))
        assert prepared(text_file) == first
    gone = tmp_path / "gone.txt"
    gone.write_text(make_text(), encoding="utf-8")
    settle(gone)
    prepared(gone)
    gone.unlink()
    book.write_text(book.read_text("utf-8").replace("my.txt", "other"), encoding="utf-8")
    assert prepared(text_file) == first
    assert [Path(name).name for name in json.loads(book.read_text("utf-8"))] == ["my.txt"]
    book.unlink()
    book.mkdir()  # no file can be written there
    assert prepared(text_file) == first


@pytest.mark.parametrize("name", ["train.bin", "val.bin", "tokenizer.json", "meta.json"])
def test_an_entry_of_the_cache_without_a_file_is_made_again(text_file, name):
    """It was refused as a directory of other files, and so was every training on that text."""
    out = prepared(text_file)
    whole = (out / name).read_bytes()
    (out / name).unlink()
    assert prepared(text_file) == out
    assert (out / name).read_bytes() == whole


@pytest.mark.parametrize(
    ("text", "documents", "ends"),
    [
        ("a" * 87 + "--" + "\n" + "b" * 10, 2, 1),
        ("c" * 40 + "--" + "a" * 45 + "--" + "\n" + "b" * 10, 3, 2),
        ("a" * 50 + "--" + "b" * 100 + " " * 30 + "--", 2, 2),
    ],
)
def test_blank_text_beside_the_cut_costs_no_document_its_end(tmp_path, text, documents, ends):
    """An end mark was lost, documents were miscounted, and so the model's texts had no end."""
    train, val = split_text([text], "--")
    meta = write_prepared(tmp_path / "p", train, val, tokenizer="char", doc_sep="--")
    data = open_dataset(tmp_path / "p")
    assert meta["documents"] == documents
    assert (data.train == data.end).sum() == ends


def test_the_mark_inside_a_text_of_characters_is_its_letters(tmp_path):
    """With another doc_sep its characters had no ids, and the text was refused."""
    text = f"one {END_OF_TEXT} day--two--three--four"
    write_prepared(tmp_path / "p", [text], [text], tokenizer="char", doc_sep="--")
    data = open_dataset(tmp_path / "p")
    assert (data.train == data.end).sum() == 3
    assert END_OF_TEXT in data.tokenizer.decode(data.train[:30].tolist())


def test_a_pipe_is_refused_and_a_text_that_grows(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a pipe, and a text is read several times"):
        prepared(tmp_path / "pipe")
    chunks = ["some text "] * 9

    class Growing:
        def __iter__(self):
            chunks.append("more ")
            return iter(chunks)

    with pytest.raises(ValueError, match="changed while it was read"):
        write_prepared(tmp_path / "p", Growing(), ["val"], tokenizer="char")
    assert not (tmp_path / "p").exists()


def test_a_text_that_changes_meanwhile_is_not_kept(text_file, monkeypatch):
    """It is read several times now; the cache must not hold it under the hash of what it was."""
    monkeypatch.setattr(prepare, "clean_sha256", lambda path: "0" * 64)
    with pytest.raises(ValueError, match=r"my\.txt changed while it was read"):
        prepared(text_file)
    assert not list(hashes.CACHE.glob("my-*"))


def test_a_dry_run_remembers_nothing(text_file, tmp_path):
    settle(text_file)
    path = prepared(text_file, vocab=260)
    for name in "train.bin", "val.bin":
        settle(path / name)
    (hashes.CACHE / "hashes.json").unlink()
    open_mixture(str(text_file), vocab=260, scratch=tmp_path / "s")
    assert not (hashes.CACHE / "hashes.json").exists()


@pytest.mark.slow
def test_a_large_text_needs_little_memory(tmp_path):
    """30 MB took 970 MB: the text, its documents and its ids as Python's integers."""
    lines = make_text(1_000_000).splitlines()
    rng = random.Random(1)
    with open(tmp_path / "big.txt", "w", encoding="utf-8") as f:
        for _ in range(30):
            f.write("\n".join(rng.sample(lines, len(lines))) + "\n")
    code = """
import resource, sys
from data import encode, prepare
encode.LARGE = 1 << 40  # one process, so that this one does all
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
prepare.main([*sys.argv[1:]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(prepare.__file__).parent.parent)}
    flags = ["big.txt", "--vocab", "300", "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], capture_output=True, encoding="utf-8", env=env
    )
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout.splitlines()[-1]) * unit < 120_000_000
