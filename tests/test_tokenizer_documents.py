"""Documents: the ids of each by itself, whatever the blocks, chunks and processes."""

import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tok import END_OF_TEXT, BPETokenizer, CharTokenizer, WordPieceTokenizer
from tok.bpe.pretokenize import Splitter
from tok.bpe.train import count_words
from tok.pieces import OVERHEAD, batches

ROOT = Path(__file__).parents[1]
LETTERS = "aab '.\n\té漢🙂1"
TEXT = f"{LETTERS} a ba ab aab{END_OF_TEXT}" * 3
BPE = {p: BPETokenizer.train([TEXT], 265, pattern=p) for p in ("gpt2", "gpt4", "none")}
END = 264
CHAR = CharTokenizer.train([TEXT])
WORDS = WordPieceTokenizer.train([TEXT], 40)
few = st.text(st.sampled_from(LETTERS), max_size=30) | st.just(END_OF_TEXT)
documents_of_chunks = st.lists(st.lists(few, max_size=4), max_size=8)


def one_by_one(tokenizer, documents, end):
    """The definition."""
    ids = []
    for document in documents:
        ids += [*tokenizer.encode("".join(document)), *([] if end is None else [end])]
    return ids


def flat(blocks):
    return [i for block in blocks for i in block]


@pytest.mark.parametrize("tokenizer", [*BPE.values(), CHAR, WORDS], ids=[*BPE, "char", "words"])
@pytest.mark.parametrize("size", [1, 7, 1000])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=documents_of_chunks, end=st.none() | st.integers(0, 300))
def test_each_document_by_itself(monkeypatch, tokenizer, size, documents, end):
    for name in ("tok.common.BLOCK", "tok.char.BLOCK"):
        monkeypatch.setattr(name, size)
    monkeypatch.setattr("tok.pieces.OVERHEAD", 1)
    want = one_by_one(tokenizer, documents, end)
    assert flat(tokenizer.encode_documents(documents, end=end)) == want
    assert flat(tokenizer.encode_documents(map("".join, documents), end=end)) == want


@pytest.mark.parametrize("size", [50, 500])
@pytest.mark.parametrize("tokenizer", [BPE["gpt2"], CHAR, WORDS], ids=["bpe", "char", "words"])
def test_two_processes_give_the_same(monkeypatch, tokenizer, size):
    for name in ("tok.common.BLOCK", "tok.char.BLOCK"):
        monkeypatch.setattr(name, size)
    documents = [TEXT[i : i + i % 9] for i in range(100)] + [TEXT * 20, "", ["a", "", "b"]]
    want = one_by_one(tokenizer, documents, 7)
    assert flat(tokenizer.encode_documents(documents, end=7, workers=2)) == want


def test_inner_iterators_are_read_in_order():
    """groupby's groups are gone as soon as the next one begins."""
    lines = ["a b\n", "b\n", END_OF_TEXT, "\n", "a\n"]
    groups = [g for _, g in groupby(lines, END_OF_TEXT.__eq__)]
    assert flat(BPE["gpt2"].encode_documents(groups)) == []  # what goes wrong with a list of them
    documents = (g for special, g in groupby(lines, END_OF_TEXT.__eq__) if not special)
    got = flat(BPE["gpt2"].encode_documents(documents, end=END, workers=2))
    assert got == one_by_one(BPE["gpt2"], ["a b\nb\n", "\na\n"], END)


def test_special_tokens_in_documents_are_plain_text():
    ids = flat(BPE["gpt2"].encode_documents([f"a{END_OF_TEXT}b"], end=END))
    assert ids.count(END) == 1
    assert BPE["gpt2"].decode(ids) == f"a{END_OF_TEXT}b{END_OF_TEXT}"


def test_arrays_are_as_wide_as_the_vocabulary():
    assert [b.typecode for b in BPE["gpt2"].encode_documents(["a", "b"])] == ["H"]
    wide = CharTokenizer(map(chr, range(0x10000, 0x20001)))
    assert [b.tolist() for b in wide.encode_documents([chr(0x20000)], end=1)] == [[65536, 1]]
    assert list(wide.encode_documents([])) == []


@pytest.mark.parametrize(
    ("documents", "says"),
    [
        ("one text", "one string; give a list"),
        (["fine", "bad\ud800"], r"character 3 is '\\ud800'"),
        (["fine", ["b", "ad\ud800"]], r"character 3 is '\\ud800'"),
    ],
)
def test_errors(documents, says):
    for tokenizer in (BPE["gpt2"], CharTokenizer("abdefin\ud800")):
        with pytest.raises(ValueError, match=says):
            list(tokenizer.encode_documents(documents))


def test_a_character_without_id_is_found_in_its_document():
    with pytest.raises(ValueError, match=r"'Z' \(U\+005A\) at 2 was not"):
        list(CHAR.encode_documents(["aaaaaa", ["a", "aZ"]]))


def test_short_documents_share_a_batch_and_long_ones_are_divided(monkeypatch):
    assert list(batches(["ab", ""], (), len, 1000)) == [["ab", None, "", None]]
    many = list(batches(["x"] * 100_000, (), len, 1 << 20))
    assert len(many) == -(-100_000 * (OVERHEAD + 1) // (1 << 20))
    monkeypatch.setattr("tok.pieces.OVERHEAD", 0)
    cut = Splitter().cut
    assert list(batches([["ab ", "cd"], "e"], (), cut, 3)) == [["ab", "", " cd"], [None, "e", None]]


def test_short_texts_are_counted_in_few_jobs(monkeypatch):
    """Each text was a job of its own: with workers, a million short ones took minutes."""
    jobs = []

    def in_order(task, waiting, workers):
        jobs.extend(waiting)
        return map(task, jobs)

    monkeypatch.setattr("tok.common.in_order", in_order)
    assert count_words(["a b", "b"] * 1000, Splitter()) == {"a": 1000, " b": 1000, "b": 1000}
    assert len(jobs) == 1


GROWTH = """
import resource, sys
from tok import BPETokenizer
from tok.bpe.pretokenize import Splitter
from tok.bpe.train import count_words
words = [f"{i * i} naïve" for i in range(3000)]
tok = BPETokenizer.train([" ".join(words)], 1000)

def text(size):
    for i in range(size // 4000):
        yield " ".join(words[i % 50 : i % 50 + 400])

def grown(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

size = int(sys.argv[1])
print(grown(lambda: sum(map(len, tok.encode_documents([text(size)], end=999)))))
print(grown(lambda: sum(map(len, tok.encode_documents(text(size), end=999)))))
print(grown(lambda: count_words([text(size), *["short text"] * 200_000], Splitter())))
"""


def growth(size):
    """Megabytes that a process grows by: encoding a long document, many, and counting words."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", GROWTH, str(size)]
    done = subprocess.run(command, capture_output=True, check=True, env=env)
    return [float(line) for line in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in Linux's unit")
@pytest.mark.parametrize("megabytes", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_text(megabytes):
    assert max(growth(megabytes * 1_000_000)) < 50
