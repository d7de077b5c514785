"""data/store.py: the prepared directory, opened; damage is noticed and named."""

import json
import random

import numpy as np
import pytest

from data.prepare import prepared, write_prepared
from data.store import SUMS, open_dataset
from data.text import END_OF_TEXT


@pytest.fixture
def directory(tmp_path):
    out = tmp_path / "p"
    write_prepared(out, ["one\n\ntwo " * 40 + "\n\n"], ["three"], vocab=270, doc_sep="\n\n")
    return out


def test_the_end_of_a_text(directory, tmp_path):
    """The id that ends each document, None for a text that is not divided."""
    data = open_dataset(directory)
    assert data.end == data.tokenizer.special_tokens[END_OF_TEXT] == data.val[-1]
    write_prepared(tmp_path / "q", ["one " * 40], ["three"], vocab=270)
    assert open_dataset(tmp_path / "q").end is None


def damage(raw, rng):
    """The bytes with a flipped bit, without their end, or with zeros in a range."""
    kind, at = rng.randrange(3), rng.randrange(len(raw))
    if kind == 0:
        return raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]
    if kind == 1:
        return raw[:at]
    n = min(rng.randint(1, 40), len(raw) - at)
    return raw[:at] + bytes(n) + raw[at + n :]


@pytest.mark.parametrize("name", ["train.bin", "val.bin", "tokenizer.json", "meta.json"])
def test_damage_is_noticed_and_named(directory, name):
    """Of flipped bits most were not: ids that no tokenizer gave, a merge that was never learnt."""
    rng, good = random.Random(name), (directory / name).read_bytes()
    for _ in range(60):
        raw = damage(good, rng)
        (directory / name).write_bytes(raw)
        if raw == good:
            continue
        with pytest.raises(ValueError, match=rf"{name}\b.* delete and remake") as e:
            open_dataset(directory)
        assert "\n" not in str(e.value)
    (directory / name).write_bytes(good)
    open_dataset(directory)


def without_sums(path):
    """The directory as 0.1.0 wrote it."""
    meta = json.loads((path / "meta.json").read_text("utf-8"))
    old = {k: v for k, v in meta.items() if k not in SUMS}
    (path / "meta.json").write_text(json.dumps(old, indent=2) + "\n", encoding="utf-8")


def test_directories_without_sums_open_as_before(directory):
    new = open_dataset(directory)
    without_sums(directory)
    old = open_dataset(directory)
    assert np.array_equal(old.train, new.train)
    assert old.end == new.end
    assert old.meta == {k: v for k, v in new.meta.items() if k not in SUMS}


@pytest.mark.parametrize("name", ["tokenizer.json", "meta.json"])
def test_damage_without_sums_is_an_error_or_a_dataset(directory, name):
    without_sums(directory)
    rng, good = random.Random(1), (directory / name).read_bytes()
    said = []
    for _ in range(60):
        (directory / name).write_bytes(damage(good, rng))
        try:
            open_dataset(directory)
        except ValueError as e:
            said.append(str(e))
    assert len(said) > 20
    assert all(str(directory) in line for line in said)


def test_a_damaged_entry_of_the_cache_is_made_again(text_file, capsys):
    path = prepared(text_file)
    files = {p.name: p.read_bytes() for p in path.iterdir()}
    for name in files:
        (path / name).write_bytes(damage(files[name], random.Random(2)))
        assert prepared(text_file) == path
        assert {p.name: p.read_bytes() for p in path.iterdir()} == files
        assert name in capsys.readouterr().err


def test_damaged_directories_are_refused(text_file):
    path = prepared(text_file)
    (path / "val.bin").write_bytes(b"\0")
    with pytest.raises(ValueError, match=r"val\.bin has 1 bytes"):
        open_dataset(path)
    (path / "val.bin").unlink()
    with pytest.raises(ValueError, match="not whole prepared data"):
        open_dataset(path)
    meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    (path / "meta.json").write_text(json.dumps({**meta, "version": 99}), encoding="utf-8")
    with pytest.raises(ValueError, match="format 99"):
        open_dataset(path)
    (path / "meta.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="not whole prepared data"):
        open_dataset(path)
    with pytest.raises(ValueError, match=r"no meta\.json"):
        prepared(text_file.parent)
