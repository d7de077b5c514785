"""safetensors: weights as a table and their bytes, no code; checked before it is read."""

import json
import os
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from torch import Tensor

from model.convert.names import MASKS
from tok.files import read_text

HEADER = 100_000_000  # bytes at most, as the format has it
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # of the data types that weights come in
MASK_BYTES = {**BYTES, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def package() -> Any:
    """The package safetensors. ValueError where it is missing."""
    try:
        import safetensors.torch
    except ImportError:
        raise ValueError(
            "this needs the package safetensors: pip install 'llm-tiny[hub]'"
        ) from None
    return safetensors


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. ValueError for a name that is there twice: which of them counts?"""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise ValueError(f"{twice[:80]!r} is there twice")
    return found


def check_safetensors(path: Path) -> list[str]:
    """Names of the tensors. ValueError unless the table fits the file: sizes, shapes, types."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        n = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))[0]
        if size < 8 or n > min(HEADER, size - 8):
            raise ValueError(f"{path} is no safetensors file: its table is longer than the file")
        raw = file.read(n)
    try:
        table = json.loads(raw.decode("utf-8"), object_pairs_hook=once)
        table.pop("__metadata__", None)
        spans = sorted(span_of(name, row) for name, row in table.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise ValueError(f"{path} is no safetensors file: its table is damaged ({e})") from None
    end = 0
    for start, stop in spans:
        if start != end:
            raise ValueError(f"{path} is damaged: tensors overlap, or leave a hole at byte {end}")
        end = stop
    if end != size - 8 - n:
        raise ValueError(f"{path} is damaged: {end} bytes of tensors, {size - 8 - n} in the file")
    return list(table)


def span_of(name: str, row: dict[str, Any]) -> tuple[int, int]:
    """Where a tensor lies. ValueError if that is not what its shape and data type take."""
    kind, shape, (start, end) = row["dtype"], row["shape"], row["data_offsets"]
    known = MASK_BYTES if name.endswith(MASKS) else BYTES
    if kind not in known:
        raise ValueError(f"{name} is of type {kind!r}, not one of {', '.join(known)}")
    values = 1
    for n in shape:
        if type(n) is not int or not 0 < n < 2**48:
            raise ValueError(f"{name} has the shape {shape}")
        values *= n
    if type(start) is not int or type(end) is not int or end - start != values * known[kind]:
        raise ValueError(f"{name} takes bytes {start} to {end}, not {values * known[kind]}")
    return start, end


def shards(directory: Path) -> list[Path]:
    """The weight files of a Hugging Face directory. ValueError if one is missing, or all are."""
    whole, table = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if whole.exists():
        return [whole]
    if not table.exists():
        pickled = sorted(directory.glob("pytorch_model*.bin"))
        why = (
            f"{pickled[0].name} is a pickle, which can run code" if pickled else "no weights there"
        )
        raise ValueError(f"{directory} has no model.safetensors ({why}); save it as safetensors")
    try:
        names = sorted(set(json.loads(read_text(table))["weight_map"].values()))
        paths = [directory / name for name in names]
        if odd := [name for name in names if Path(name).name != name]:
            raise ValueError(f"it names a file elsewhere: {odd[0]}")
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise ValueError(f"{table} is damaged ({e})") from None
    if missing := [path for path in paths if not path.exists()]:
        raise ValueError(f"{missing[0]} is missing, one of {len(paths)} files; bring it there")
    return paths


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All weights of a directory by name, as float32."""
    state: dict[str, Tensor] = {}
    for path in shards(directory):
        state |= read_safetensors(path)
    return state


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The weights of one file, as float32, copied one at a time. ValueError if it is damaged.

    Masks, which older files have beside them, are left out.
    """
    safetensors = package()
    table = check_safetensors(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = [name for name in table if not name.endswith(MASKS)]
            return {name: file.get_tensor(name).float() for name in names}
    except safetensors.SafetensorError as e:
        raise ValueError(f"{path} is damaged ({e})") from None


def write_safetensors(path: Path, state: dict[str, Tensor]) -> None:
    """Write tensors, which may share no memory, with the mark of PyTorch. OSError if it can't."""
    safetensors = package()
    whole = {name: tensor.contiguous() for name, tensor in state.items()}
    try:
        safetensors.torch.save_file(whole, path, metadata={"format": "pt"})
    except safetensors.SafetensorError as e:  # its word for a disk that is full
        raise OSError(str(e)) from None
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)  # safetensors lets nobody else read it
