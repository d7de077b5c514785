"""The prepared directory: train.bin, val.bin, tokenizer.json, meta.json. Whole or not there."""

import glob
import json
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tok
from data.hashes import file_sha256, remembered, sha256
from tok import END_OF_TEXT
from tok.storage import fingerprint

FORMAT = 1  # part of the cache's key: raise it when the same input gives other bytes
FILES = {"train.bin", "val.bin", "tokenizer.json", "meta.json"}
KEYS = {"train_tokens": int, "val_tokens": int, "documents": int, "text_sha256": str}
KEYS |= {"train_bytes": int, "val_bytes": int, "name": str, "tokenizer_sha256": str}
SUMS = {"train_sha256", "val_sha256", "meta_sha256"}  # missing in directories of 0.1.0


@dataclass(frozen=True)
class TokenDataset:
    """A prepared directory, opened: memory-mapped ids of both splits, tokenizer, meta.json."""

    path: Path
    train: np.ndarray
    val: np.ndarray
    tokenizer: tok.Tokenizer
    meta: dict[str, Any]

    @property
    def end(self) -> int | None:
        """The id of <|endoftext|> if the text was divided into documents, else None."""
        return end_id(self.meta, self.tokenizer)

    @property
    def val_bytes(self) -> int:
        """Bytes that validation's ids stand for; 0 if the tokenizer does not keep a text."""
        return int(self.meta["val_bytes"]) if self.tokenizer.lossless else 0


def end_id(meta: dict[str, Any], tokenizer: tok.Tokenizer) -> int | None:
    """The same, from a checkpoint's meta.json; a pretrained model has learnt from documents."""
    return None if meta.get("documents") == 1 else document_end(tokenizer)


def document_end(tokenizer: tok.Tokenizer) -> int | None:
    """The id after each document: <|endoftext|>, or [SEP] of a BERT from elsewhere; or None."""
    specials = tokenizer.special_tokens
    return specials.get(END_OF_TEXT, specials.get("[SEP]"))


def meta_text(meta: dict[str, Any]) -> str:
    """meta.json, with a sum of all its other lines as the last."""
    return json.dumps({**meta, "meta_sha256": meta_sum(meta)}, indent=2) + "\n"


def meta_sum(meta: dict[str, Any]) -> str:
    """The hash of all that a meta.json says, its own sum left out."""
    return sha256(json.dumps({k: v for k, v in meta.items() if k != "meta_sha256"}).encode())


def open_dataset(path: str | Path, *, keep: bool = True) -> TokenDataset:
    """Open what data.prepare wrote. ValueError, naming the file, if one is missing or damaged.

    With `keep`, hashes of large files are remembered for the next time.
    """
    path = Path(path)
    try:
        meta = read_meta(path / "meta.json")
        train, val = (open_tokens(path, meta, split, keep) for split in ("train", "val"))
        tokenizer = load_tokenizer(path / "tokenizer.json", meta["tokenizer_sha256"])
        return TokenDataset(path, train, val, tokenizer, meta)
    except FileNotFoundError as e:
        raise ValueError(f"{path} is not whole prepared data ({e}); delete and remake it") from None


def load_tokenizer(file: Path, wanted: str) -> tok.Tokenizer:
    """Load the tokenizer that meta.json describes; ValueError with the cure if it is another."""
    try:
        found, tokenizer = fingerprint(file), tok.load(file)
    except ValueError as e:
        raise ValueError(f"{e}; delete and remake {file.parent}") from None
    check_sum(file, wanted, found)
    return tokenizer


def read_meta(file: Path) -> dict[str, Any]:
    """Read meta.json. ValueError if it is damaged, or of another version."""
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        if meta["version"] != FORMAT:
            raise KeyError(f"format {meta['version']}, not {FORMAT}")
        if meta["dtype"] not in ("uint16", "uint32"):
            raise KeyError(f"dtype {meta['dtype']}")
        for key, kind in KEYS.items():
            if type(meta[key]) is not kind:
                raise KeyError(f"{key} {meta[key]!r}")
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        why = f"{file} is not whole prepared data ({e}); delete and remake {file.parent}"
        raise ValueError(why) from None
    if meta.keys() & SUMS:
        check_sum(file, meta.get("meta_sha256"), meta_sum(meta))
    return meta


def open_tokens(path: Path, meta: dict[str, Any], split: str, keep: bool) -> np.ndarray:
    """Map one split's ids. ValueError if the file is not the one that meta.json describes."""
    file, n, dtype = path / f"{split}.bin", meta[f"{split}_tokens"], np.dtype(meta["dtype"])
    if (size := file.stat().st_size) != n * dtype.itemsize:
        raise ValueError(f"{file} has {size} bytes, not {n} tokens; delete and remake {path}")
    if f"{split}_sha256" in meta:
        check_sum(file, meta[f"{split}_sha256"], remembered(file, file_sha256, keep=keep))
    return map_tokens(file, dtype)


def map_tokens(file: Path, dtype: np.dtype | str) -> np.ndarray:
    """The ids of a file, read when they are used."""
    return np.memmap(file, dtype, mode="r") if file.stat().st_size else np.empty(0, dtype)


def check_sum(file: Path, wanted: str | None, found: str) -> None:
    """Raise ValueError unless a file still has the hash that meta.json says."""
    if found != wanted:
        raise ValueError(
            f"{file} is damaged (its sha256 is not the one in meta.json); "
            f"delete and remake {file.parent}"
        )


def forget_pages(tokens: np.ndarray) -> None:
    """Let go of the pages of a mapped file that were read: else each stays in resident memory.

    The kernel keeps them in its cache as long as it has room. Windows trims them by itself.
    """
    mapped: object = tokens.base
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


@contextmanager
def new_directory(out: Path, files: Set[str] = FILES) -> Iterator[Path]:
    """A directory to fill with `files`, which becomes `out` at the end if nothing failed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(out, files)
    new = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        os.chmod(new, 0o777 & ~umask())
        yield new
        replace_dir(new, out)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def check_out(out: Path) -> None:
    """Raise ValueError unless `out` is free, empty, or prepared data that may be replaced."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out names a directory")
    if out.is_dir() and {p.name for p in out.iterdir()} not in (set(), FILES):
        raise ValueError(f"{out} holds other files; choose a new directory for --out")
    if out.resolve() == Path.cwd():
        raise ValueError(f"{out} is the working directory; choose another --out")


def remove_stale(out: Path, files: Set[str] = FILES, age: float = 86400) -> None:
    """Remove what a killed writer of `out` left beside it: our files, untouched for a day."""
    for left in out.parent.glob(f".{glob.escape(out.name)}-*"):
        ours = left.is_dir() and {p.name for p in left.iterdir()} <= files
        if ours and time.time() - left.stat().st_mtime > age:
            shutil.rmtree(left, ignore_errors=True)


def replace_dir(new: Path, out: Path) -> None:
    """Rename `new` to `out`. One call cannot replace a directory: the old one steps aside."""
    if out.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
        os.replace(out, old)
        os.replace(new, out)
        shutil.rmtree(old)
    else:
        os.replace(new, out)


def umask() -> int:
    """The process's mask for new files, which mkdtemp does not follow."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
