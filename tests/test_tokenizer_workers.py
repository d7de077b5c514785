"""Many processes: the same result, errors that arrive, and no demands on the caller's script."""

import os
import subprocess
import sys
import threading
from operator import neg
from pathlib import Path

import pytest

from tok import BPETokenizer, CharTokenizer
from tok.bpe.pretokenize import Splitter
from tok.bpe.train import count_words
from tok.workers import in_order

ROOT = Path(__file__).parents[1]
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat;",
    "naïve",
    "café",
    "🙂\n\n",
    "",
    "and",
    "don't",
    "12345",
    "stop<|endoftext|>",
]
TEXT = " ".join(WORDS[i * i % len(WORDS)] + str(i % 97) for i in range(4000))


def run_python(code, **env):
    """Run a script of its own, as a user's file would."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | env
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces so small that a short text has many."""
    monkeypatch.setattr("tok.common.BLOCK", 300)
    monkeypatch.setattr("tok.common.BLOCK", 300)


def test_results_come_in_order():
    assert list(in_order(neg, range(50), workers=3)) == [-i for i in range(50)]
    assert list(in_order(neg, [], workers=2)) == []
    assert list(in_order(neg, range(3))) == [0, -1, -2]


def test_errors_of_a_worker_arrive():
    with pytest.raises(TypeError, match="bad operand"):
        list(in_order(neg, [1, "a", 2], workers=2))
    with pytest.raises(ValueError, match="workers=0; give 1 or more"):
        list(in_order(neg, [1], workers=0))


def test_a_dead_worker_is_an_error():
    with pytest.raises(ChildProcessError, match="ended early; try workers=1"):
        list(in_order(os._exit, [3], workers=1 + 1))


def test_an_abandoned_loop_leaves_no_process():
    found = in_order(neg, range(100), workers=2)
    assert next(found) == 0
    found.close()


def test_it_works_beside_threads():
    """fork warns of this since Python 3.12, and may hang."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert list(in_order(neg, range(4), workers=2)) == [0, -1, -2, -3]
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_counts_and_ids_do_not_depend_on_workers(small_pieces, workers):
    end = ["<|endoftext|>"]
    split = Splitter()
    assert count_words([TEXT], split, end, workers) == count_words([[TEXT]], split, end, 1)
    tok = BPETokenizer.train([TEXT], 400, workers=workers)
    assert tok.merges == BPETokenizer.train([TEXT], 400).merges
    for choice in ("none", "all"):
        blocks = tok.encode_blocks([TEXT], allowed_special=choice, workers=workers)
        ids = [i for block in blocks for i in block]
        assert ids == tok.encode(TEXT, allowed_special=choice)


def test_chunks_of_a_text_do_not_matter(small_pieces):
    whole = BPETokenizer.train([TEXT], 400)
    lines = BPETokenizer.train([TEXT.splitlines(keepends=True)], 400)
    assert whole.merges == lines.merges
    assert whole.merges != BPETokenizer.train(TEXT.split(" "), 400).merges  # texts stand alone


def test_a_script_without_a_main_guard():
    code = """
from tok import BPETokenizer
print("once")
tok = BPETokenizer.train(["low lower lowest " * 100], 262, workers=2)
print(len(tok.merges), [len(b) for b in tok.encode_blocks(["lower"], workers=2)])
"""
    assert run_python(code).splitlines() == ["once", "5 [3]"]


def test_the_hash_seed_does_not_matter():
    code = f"""
from tok import BPETokenizer
import sys
tok = BPETokenizer.train([{TEXT[:3000]!r}], 380)
print(hash(1), tok.merges)
"""
    assert run_python(code, PYTHONHASHSEED="1") == run_python(code, PYTHONHASHSEED="2")


def test_blocks_are_as_wide_as_the_vocabulary():
    tok = BPETokenizer.train(["ab"], 300)
    assert [b.typecode for b in tok.encode_blocks(["ab"])] == ["H"]
    tok = CharTokenizer.train(["ab"])
    assert [list(b) for b in tok.encode_blocks(["ab", "ba"], workers=2)] == [[0, 1, 1, 0]]


LIMIT = """
import resource
from tok import BPETokenizer
words = [str(i * i) for i in range(3000)]
tok = BPETokenizer.train([" ".join(words)], 1000)

def lines():
    for i in range(60_000):
        yield " ".join(words[i % 50 : i % 50 + 20]) + f" naïve {words[i % 3000]} x{i}\\n"

size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 1_000_000, -1))
print(sum(1 for _ in tok.encode_iter(lines())) > 1_000_000, sum(map(len, lines())) > 5_000_000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on address space")
def test_encode_iter_adds_less_than_one_megabyte():
    """5 MB of ever new words under a limit on address space that 1 MB more would break."""
    assert run_python(LIMIT).split() == ["True", "True"]
