"""`python -m tok.bpe`: files, pipes, and one line for each mistake."""

import io
import json
import os
import subprocess
import sys
from array import array
from pathlib import Path

import pytest
from conftest import shared

import tok
from tok import CharTokenizer, cli
from tok.bpe import __main__ as commands
from tok.bpe.interop import LETTER
from tok.cli import Progress
from tok.files import check_writable, output_file, read_text, replacing, text_chunks

ROOT = Path(__file__).parents[1]
TEXT = "\ufeffOnce upon a time, naïve café 🙂.\r\n<|endoftext|>It rained.  \n" * 20


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a text and a tokenizer learnt from it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    assert commands.main(["train", "a.txt", "--vocab", "290", "--out", "t.json"]) == 0
    return tmp_path


class Std:
    """stdin or stdout with a buffer to look into."""

    def __init__(self, data=b""):
        self.buffer = io.BytesIO(data)


def through(monkeypatch, data, *args):
    """What a filter writes to stdout for these bytes on stdin."""
    out = Std()
    monkeypatch.setattr(sys, "stdin", Std(data))
    monkeypatch.setattr(sys, "stdout", out)
    commands.main([*args, "--tokenizer", "t.json"])
    return out.buffer.getvalue()


def test_train_drops_the_mark_and_keeps_the_special_token(here, capsys):
    found = tok.load("t.json")
    assert found.vocab_size == 290
    assert not any(b"\xef\xbb" in a + b for a, b in found.merges[:5])
    assert found.special_tokens == {"<|endoftext|>": 289}


def test_train_says_when_the_text_gives_no_more(here, capsys):
    Path("b.txt").write_text("ab ab", "utf-8")
    commands.main(["train", "b.txt", "--vocab", "999", "--out", "b.json", "--no-special"])
    assert "b.json: 258 tokens; the text gives no more, --vocab was 999" in capsys.readouterr().err
    commands.main(["train", "b.txt", "--vocab", "260", "--out", "b.json", "--special", "<x>"])
    assert tok.load("b.json").special_tokens == {"<x>": 258}


def test_two_files_are_two_texts(here):
    Path("x.txt").write_text("ab", "utf-8")
    Path("y.txt").write_text("cd", "utf-8")
    commands.main(["train", "x.txt", "y.txt", "--vocab", "300", "--out", "b.json", "--no-special"])
    assert tok.load("b.json").merges == [(b"c", b"d"), (b"a", b"b")]


@pytest.mark.parametrize("flags", [[], ["--bin"], ["--special"], ["--bin", "--workers", "2"]])
def test_there_and_back_byte_for_byte(here, monkeypatch, flags):
    data = TEXT.encode()
    ids = through(monkeypatch, data, "encode", *flags)
    if "--bin" not in flags:
        special = "allowed_special", "all" if "--special" in flags else "none"
        want = tok.load("t.json").encode(TEXT[1:], **dict([special]))
        assert list(map(int, ids.split())) == want
        assert ids.endswith(b"\n")
    back = through(monkeypatch, ids, "decode", *[f for f in flags if f == "--bin"])
    assert "\ufeff".encode() + back == data


def test_files_there_and_back(here):
    commands.main(["encode", "a.txt", "--tokenizer", "t.json", "--bin", "--out", "a.bin"])
    want = tok.load("t.json").encode(TEXT[1:])
    assert list(array("H", Path("a.bin").read_bytes())) == want
    commands.main(["decode", "a.bin", "--tokenizer", "t.json", "--bin", "--out", "b.txt"])
    assert Path("b.txt").read_bytes() == TEXT[1:].encode()


def test_many_ids_take_four_bytes(here):
    wide = CharTokenizer(map(chr, range(0x10000, 0x20001)))
    wide.save("t.json")
    Path("w.txt").write_text(chr(0x20000) + chr(0x10000), "utf-8")
    commands.main(["encode", "w.txt", "--tokenizer", "t.json", "--bin", "--out", "w.bin"])
    assert list(array("I", Path("w.bin").read_bytes())) == [65536, 0]
    commands.main(["decode", "w.bin", "--tokenizer", "t.json", "--bin", "--out", "w2.txt"])
    assert Path("w2.txt").read_bytes() == Path("w.txt").read_bytes()


def test_nothing_in_nothing_out(here, monkeypatch):
    assert through(monkeypatch, b"", "encode") == b"\n"
    assert through(monkeypatch, b"", "encode", "--bin") == b""
    assert through(monkeypatch, b"\n", "decode") == b""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("train none.txt --out o", "none.txt: No such file"),
        ("train a.txt --vocab 256 --out o", "vocab_size=256 is smaller .* at least 257"),
        ("train empty.txt --out o", "empty.txt: no two letters together; give a longer text"),
        ("train latin.txt --out o", r"latin.txt: not UTF-8 at byte 3 \(0xe9\)"),
        ("train cut.txt --out o", r"cut.txt: not UTF-8 at byte 2 \(0xf0\)"),
        ("train . --out o", "Is a directory"),
        ("train a.txt --out .", "is a directory; give the name of a file"),
        ("train a.txt --out no/o", "no/o: No such file or directory"),
        ("train a.txt --out o --pattern (", "does not compile"),
        ("train a.txt --out o --pattern [a-z]+", "skips 'O' at character 0"),
        ("train a.txt --out o --special a", "ordinary token"),
        ("train a.txt --out o --special <x> --special <x>", "given 2 times"),
        ("train a.txt --out o --special <x> --no-special", "exclude each other"),
        ("train a.txt --out o --workers 0", "workers=0"),
        ("train a.txt --vocb 9", "unknown flag --vocb; did you mean --vocab"),
        ("train a.txt --vocab x", "invalid int value: 'x'"),
        ("encode a.txt b.txt", "unknown argument b.txt"),
        ("encode none.txt --tokenizer t.json --out o", "none.txt: No such file"),
        ("encode latin.txt --tokenizer t.json --out o", "latin.txt: not UTF-8 at byte 3"),
        ("encode a.txt --tokenizer none.json --out o", "none.json: no such file; make a tokenizer"),
        ("encode a.txt --tokenizer a.txt --out o", "a.txt: not a tokenizer: malformed JSON"),
        ("encode a.txt --tokenizer list.json --out o", "no 'kind'"),
        ("encode a.txt --tokenizer hf.json --out o", "tokenizer.json of Hugging Face"),
        ("encode a.txt --tokenizer new.json --out o", "version 9, not 1"),
        ("encode a.txt --tokenizer odd.json --out o", "unknown kind 'odd'"),
        ("encode a.txt --tokenizer hurt.json --out o", "hurt.json: damaged .*merges"),
        ("decode three.bin --bin --tokenizer t.json --out o", "3 bytes is not a multiple of 2"),
        ("decode three.bin --tokenizer t.json --out o", "item 0 is 'abc', not an id"),
        ("decode big.txt --tokenizer t.json --out o", "unknown id 5000"),
        ("import none.json m.txt --out o", "none.json: No such file"),
        ("import t.json none.txt --out o", "t.json: not a vocab.json, token -> id"),
        ("import big.txt m.txt --out o", "big.txt: not a vocab.json, token -> id"),
        ("import v.json none.txt --out o", "none.txt: No such file"),
        ("import v.json a.txt --out o", "a.txt: line 1 is 'Once .* not two tokens"),
        ("import v.json m.txt --out o --special a", "ordinary token"),
        ("import v.json m.txt --out no/o", "no/o: No such file"),
        ("import v.json", "needs its MERGES.txt"),
        ("decod", "invalid choice"),
        ("", "required"),
    ],
)
def test_mistakes_leave_no_file(here, line, says):
    files = {
        "empty.txt": b"",
        "latin.txt": "caf\xe9 x".encode("latin-1"),
        "cut.txt": "ab🙂".encode()[:-1],
        "list.json": b"[1]",
        "hf.json": b'{"model": {}}',
        "new.json": b'{"kind": "bpe", "version": 9}',
        "odd.json": b'{"kind": "odd"}',
        "hurt.json": b'{"kind": "bpe", "version": 1, "bytes": []}',
        "three.bin": b"abc",
        "big.txt": b"1 5000",
        "v.json": json.dumps({letter: b for b, letter in LETTER.items()}).encode(),
        "m.txt": b"#version: 0.2\n",
    }
    for name, data in files.items():
        Path(name).write_bytes(data)
    before = sorted(here.iterdir())
    with pytest.raises((ValueError, OSError)) as stop:
        commands.main(line.split())
    with pytest.raises(AssertionError, match=says):  # the line that a person sees
        raise AssertionError(cli.describe(stop.value))
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocab_size": 7}, "290 tokens, not the 7 promised"),
        ({"bytes": [0] * 256}, "id 0 is both"),
        ({"bytes": list(range(255))}, "tokens, not the 290"),
        ({"bytes": ["a"] * 256}, "damaged"),
        ({"merges": [[256, "a"]]}, "not enough values"),
        ({"merges": 5}, "damaged"),
        ({"merges": [[256, [999], "a"]]}, "range"),
        ({"merges": [[256, 10**15, "a"]]}, "damaged"),  # bytes(10**15) is 1000 TB
        ({"comment": "x"}, r"unknown: \['comment'\]"),
        ({"special_tokens": {"<x>": 0}}, "id 0 is both"),
        ({"special_tokens": []}, "damaged"),
        ({"pattern": 5}, "damaged|pattern"),
        ({"pattern": "("}, "does not compile"),
        ({"kind": "char"}, "damaged"),
    ],
)
def test_a_damaged_file_without_checksum_is_named(here, changes, says):
    found = json.loads(Path("t.json").read_text("utf-8"))
    del found["sha256"]
    Path("d.json").write_text(json.dumps(found | changes), "utf-8")
    with pytest.raises(ValueError, match=f"(?s)d.json: .*({says})"):
        tok.load("d.json")


def test_a_file_of_the_other_kind(here):
    with pytest.raises(ValueError, match=r"kind is 'bpe', not 'char'; use tok\.load"):
        CharTokenizer.load("t.json")


def test_import_makes_a_tokenizer_of_gpt2s_files(here, capsys):
    ids = {LETTER[b]: b for b in range(256)} | {"ab": 256, "<|endoftext|>": 257}
    Path("v.json").write_text(json.dumps(ids), "utf-8")
    Path("m.txt").write_text("#version: 0.2\na b\n", "utf-8")
    special = ["--special", "<|pad|>", "--special", "<|endoftext|>"]
    assert commands.main(["import", "v.json", "m.txt", "--out", "g.json", *special]) == 0
    says = "g.json: 259 tokens; <|endoftext|> is 257, <|pad|> is 258"
    assert says in capsys.readouterr().err
    got = tok.load("g.json").encode("cab<|pad|><|endoftext|>", allowed_special="all")
    assert got == [99, 256, 258, 257]


def test_import_of_the_published_files(here, capsys):
    Path("tok").mkdir()
    commands.main(
        ["import", *(str(shared(f"gpt2/{name}")) for name in ("vocab.json", "merges.txt"))]
    )
    assert "tok/gpt2.json: 50257 tokens; <|endoftext|> is 50256" in capsys.readouterr().err
    assert tok.load("tok/gpt2.json").encode("Hello world") == [15496, 995]


def test_help_has_an_example(capsys):
    for command in ("train", "encode", "decode", "import"):
        with pytest.raises(SystemExit):
            commands.main([command, "--help"])
        assert f"python -m tok.bpe {command}" in capsys.readouterr().out


def test_as_a_program(here):
    """In its own process: no warning of a module run twice, one line and status 2 for a mistake."""
    command = [sys.executable, "-W", "error", "-m", "tok.bpe", "encode", "--tokenizer"]
    env = {"PYTHONPATH": str(ROOT), "PATH": ""}
    good = subprocess.run([*command, "t.json"], input=b"Once", capture_output=True, env=env)
    assert (good.returncode, good.stderr) == (0, b"")
    assert tok.load("t.json").decode(map(int, good.stdout.split())) == "Once"
    bad = subprocess.run([*command, "no.json"], input=b"Once", capture_output=True, env=env)
    assert (bad.returncode, bad.stdout) == (2, b"")
    assert bad.stderr.startswith(b"error: no.json: no such file")
    assert bad.stderr.count(b"\n") == 1


def test_text_chunks_find_a_byte_in_any_block(monkeypatch, tmp_path):
    data = ("é" * 50).encode() + b"\xff" + b"a" * 50
    for block in (1, 2, 3, 7, 99, 100, 101, 200):
        monkeypatch.setattr("tok.files.BLOCK", block)
        with pytest.raises(ValueError, match=r"x: not UTF-8 at byte 100 \(0xff\)"):
            list(text_chunks(io.BytesIO(data), "x"))
        assert "".join(text_chunks(io.BytesIO(data[:100]), "x")) == "é" * 50


@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
def test_a_byte_order_mark_is_dropped_once(monkeypatch, tmp_path, block):
    """`encode` kept the mark that `train` had dropped; now it is dropped where files are read."""
    monkeypatch.setattr("tok.files.BLOCK", block)
    data = "\ufeff\ufeffa\r\n".encode()
    (tmp_path / "m").write_bytes(data)
    assert read_text(tmp_path / "m") == "\ufeffa\r\n" == "".join(text_chunks(io.BytesIO(data), "x"))
    for broken, at in ((data + b"\xff", 9), (data[:2], 0)):
        with pytest.raises(ValueError, match=f"x: not UTF-8 at byte {at} "):
            list(text_chunks(io.BytesIO(broken), "x"))


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    for text in ("1", "2"):
        with replacing(tmp_path / "a") as temporary:
            Path(temporary).write_text(text, "utf-8")
    with pytest.raises(TypeError), output_file(tmp_path / "a") as file:
        file.writelines([b"half", None])
    assert (tmp_path / "a").read_bytes() == b"2"
    with pytest.raises(OSError, match=r"no/a'$"), output_file(tmp_path / "no" / "a"):
        pass
    with (
        pytest.raises(OSError, match="is a directory; give the name of a file"),
        replacing(tmp_path),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_device_is_written_to_and_not_replaced(tmp_path):
    """`--out /dev/null`, typed by root, put a plain file in the place of the device.

    The temporary file was moved over it. Pipes and devices are now opened as they are.
    """
    os.mkfifo(tmp_path / "pipe")
    with replacing(tmp_path / "pipe") as name:
        assert name == str(tmp_path / "pipe")
    check_writable(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_progress_speaks_to_a_terminal_only(monkeypatch, capsys):
    show = Progress("learning", 200)
    show(100)
    show.close()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    show = Progress("learning", 200)
    show(50)  # too early
    show.due = 0
    show(100)
    show(150)  # too soon after the last
    show.close()
    assert capsys.readouterr().err == "\rlearning 50%\r            \r"
