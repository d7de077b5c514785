"""A checkpoint that a disk or a copy has damaged is refused in one line, or is read as it was.

Of 40 files with one flipped bit 35 once loaded unnoticed, one died of a KeyError, and a file of a
few junk bytes of a struct.error. The archive has a CRC32 for every record, which torch.load does
not look at; and a bit of the archive's directory makes a record a folder, of which torch.load reads
nothing and leaves the tensor as its memory was. Now both are checked, and every case ends with
status 2 and the file's name.
"""

import random

import pytest

import eval
import sample
import train
from utils.chaos import equal
from utils.training.checkpoint import load_checkpoint


def truncate(raw, rng):
    return raw[: rng.randrange(len(raw))]


def flip(raw, rng):
    at, bit = rng.randrange(len(raw)), rng.randrange(8)
    return raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]


def flip_late(raw, rng):
    """In the archive's directory, its last tenth, where a flip may change a name or an offset."""
    cut = len(raw) * 9 // 10
    return raw[:cut] + flip(raw[cut:], rng)


def zero(raw, rng):
    at, n = rng.randrange(len(raw)), rng.randrange(1, 600)
    return raw[:at] + bytes(len(raw[at : at + n])) + raw[at + n :]


def junk(raw, rng):
    return rng.choice((b"", b"PK\3\4", raw[:4])) + rng.randbytes(rng.randrange(40))


def overwrite(raw, rng):
    at, n = rng.randrange(len(raw)), rng.randrange(1, 9)
    return raw[:at] + rng.randbytes(n) + raw[at + n :]


def twice(raw, rng):
    return raw + raw[: rng.randrange(len(raw))]


DAMAGES = [truncate, flip, flip_late, zero, junk, overwrite, twice]


def cases(raw, n):
    """Damaged copies, always the same; the first is an empty file."""
    rng = random.Random(1)
    yield b""
    for i in range(n - 1):
        yield DAMAGES[i % len(DAMAGES)](raw, rng)


def refused(path):
    """What load_checkpoint says of a file, or "" if it gives a checkpoint."""
    try:
        return "" if load_checkpoint(path) else "empty"
    except ValueError as e:
        return str(e)


def check_load(path, n):
    """Each damaged file is named, or loads as the same; gives how many were refused."""
    raw, want, said = path.read_bytes(), load_checkpoint(path), []
    for i, damaged in enumerate(cases(raw, n)):
        path.write_bytes(damaged)
        said.append(refused(path))
        assert said[-1].startswith(str(path)) or equal(load_checkpoint(path), want), i
        assert "\n" not in said[-1]
    path.write_bytes(raw)
    return sum(map(bool, said))


def test_damage_is_noticed_or_harmless(toy_run):
    assert check_load(toy_run / "last.pt", 200) > 150


def test_a_record_marked_as_a_folder_is_noticed(toy_run):
    """Offset 38 of an entry in the archive's directory: the attributes, where 0x10 is a folder."""
    path = toy_run / "best.pt"
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"PK\1\2", 0, raw.rindex(b"/data/1")) + 38] ^= 0x10
    path.write_bytes(raw)
    assert "has changed" in refused(path)


@pytest.mark.slow
def test_damage_is_noticed_or_harmless_in_many_cases(toy_run):
    assert check_load(toy_run / "best.pt", 5_000) > 4_000


@pytest.mark.parametrize("which", ["sample", "eval", "train"])
def test_every_command_says_it_in_one_line(toy_run, which, error_of):
    """The commands themselves, on the cases that load_checkpoint refuses: one of each kind."""
    path = toy_run / ("last.pt" if which == "train" else "best.pt")
    command = {"sample": sample.main, "eval": eval.main, "train": train.main}[which]
    flags = ["--run", "my", *(["--resume"] if which == "train" else [])]
    raw, seen = path.read_bytes(), 0
    for damaged in cases(raw, 3 * len(DAMAGES)):
        path.write_bytes(damaged)
        if refused(path):
            assert f"error: {toy_run.relative_to(toy_run.parent.parent)}/{path.name}" in error_of(
                command, *flags
            )
            seen += 1
    assert seen > len(DAMAGES)
