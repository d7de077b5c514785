"""Tokenizer files: those of 0.1.0 load, damage is noticed and named, whatever the bytes."""

import hashlib
import json
import random

import pytest

import tok
from tok import BPETokenizer, CharTokenizer
from tok.bpe import __main__ as commands
from tok.storage import fingerprint

END = "<|endoftext|>"
TEXT = "low low lower é é é 🙂🙂"
OLD_BPE = f"""{{
"kind": "bpe",
"version": 1,
"pattern": "gpt2",
"vocab_size": 262,
"special_tokens": {{"{END}": 261}},
"bytes": {list(range(256))},
"merges": [
[256, [195], [169]],
[257, "o", "w"],
[258, "l", "ow"],
[259, " ", "é"],
[260, [240], [159]]
]
}}
"""
OLD_CHAR = f"""{{
"kind": "char",
"version": 1,
"vocab_size": 4,
"chars": ["a", "b", "c"],
"special_tokens": {{"{END}": 3}}
}}
"""
OLD = {  # as version 0.1.0 wrote them, and their SHA-256
    "bpe": (OLD_BPE, "fc070a579dd7d005317748690966bf71df679e1fc85aa091a7cd32e28a1d97df"),
    "char": (OLD_CHAR, "2746c239f0267baceaac2aec006dd3e24e99ecedebb4b851fd553f4c3d9ebf59"),
}
NEW = {
    "bpe": BPETokenizer.train([TEXT], 262, special_tokens=[END]),
    "char": CharTokenizer.train(["cab"], special_tokens=[END]),
}
both = pytest.mark.parametrize("kind", ["bpe", "char"])


def same(a, b):
    return (type(a), a.vocab, a.special_tokens) == (type(b), b.vocab, b.special_tokens)


@both
def test_files_of_0_1_0_load_and_keep_their_fingerprint(tmp_path, kind):
    """A checkpoint of 0.1.0 holds the hash of its tokenizer's file, to be found again in ours."""
    text, sha256 = OLD[kind]
    (tmp_path / "old.json").write_text(text, "utf-8", newline="\n")
    assert hashlib.sha256((tmp_path / "old.json").read_bytes()).hexdigest() == sha256
    back = tok.load(tmp_path / "old.json")
    assert same(back, NEW[kind])
    back.save(tmp_path / "new.json")
    NEW[kind].save(tmp_path / "again.json")
    assert (tmp_path / "new.json").read_bytes() == (tmp_path / "again.json").read_bytes()
    assert json.loads((tmp_path / "new.json").read_text("utf-8"))["sha256"] == sha256
    assert fingerprint(tmp_path / "old.json") == fingerprint(tmp_path / "new.json") == sha256
    assert (tmp_path / "old.json").read_text("utf-8") == text


@both
def test_white_space_is_no_damage(tmp_path, kind):
    """git on Windows may write other line ends."""
    NEW[kind].save(tmp_path / "t.json")
    data = (tmp_path / "t.json").read_bytes()
    (tmp_path / "t.json").write_bytes(data.replace(b"\n", b"\r\n"))
    assert same(tok.load(tmp_path / "t.json"), NEW[kind])


def test_a_change_that_still_parses_is_noticed(tmp_path):
    """[258, "l", "ow"] with one bit flipped was [258, "m", "ow"]: another tokenizer, in silence."""
    NEW["bpe"].save(tmp_path / "t.json")
    text = (tmp_path / "t.json").read_text("utf-8")
    for old, new in (('"l", "ow"', '"m", "ow"'), ('"gpt2"', '"gpt4"'), ("endof", "endoF")):
        assert old in text
        (tmp_path / "t.json").write_text(text.replace(old, new), "utf-8")
        with pytest.raises(ValueError, match=r"t\.json: damaged \(not the contents .* saved\)"):
            tok.load(tmp_path / "t.json")
    (tmp_path / "t.json").write_text(text.replace('"sha256"', '"sha252"'), "utf-8")
    with pytest.raises(ValueError, match=r"unknown: \['sha252'\]"):
        tok.load(tmp_path / "t.json")


def damage(data, rng):
    """Cut the end off, flip a bit or zero a range."""
    start, length = rng.randrange(len(data) - 1), rng.randrange(1, 20)
    kind = rng.choice(["cut", "flip", "zero"])
    if kind == "cut":
        return data[:start]
    if kind == "zero":
        return data[:start] + bytes(length) + data[start + length :]
    return data[:start] + bytes([data[start] ^ (1 << rng.randrange(8))]) + data[start + 1 :]


@both
@pytest.mark.parametrize("checksum", [True, False])
def test_any_damage_is_a_value_error_that_names_the_file(tmp_path, kind, checksum):
    rng, path = random.Random(0), tmp_path / "t.json"
    NEW[kind].save(path)
    data = path.read_bytes() if checksum else OLD[kind][0].encode()
    for _ in range(300):
        path.write_bytes(damage(data, rng))
        found, says = None, ""
        try:
            found = tok.load(path)
        except ValueError as e:
            says = str(e)
        if found is None:
            assert says.startswith(f"{path}: ")
        else:
            assert not checksum or same(found, NEW[kind])


def test_damage_is_one_line_of_a_command(tmp_path, error_of):
    path, text = tmp_path / "t.json", tmp_path / "a.txt"
    text.write_text("low", "utf-8")
    NEW["bpe"].save(path)
    data, rng = path.read_bytes(), random.Random(1)
    for _ in range(30):
        path.write_bytes(damage(data, rng))
        assert f"{path}: " in error_of(commands.main, "encode", text, "--tokenizer", path)
