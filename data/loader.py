"""Token files -> batches, a pure function of the step: a resumed run sees the same ones.

Letters: B = batch_size, T = block_size.
"""

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tok


@dataclass(frozen=True)
class Prepared:
    """A prepared directory, opened: memory-mapped ids of both splits, tokenizer, meta.json."""

    path: Path
    train: np.ndarray
    val: np.ndarray
    tokenizer: Any
    meta: dict


def open_prepared(path) -> Prepared:
    """Open what data.prepare wrote. ValueError if a file is missing or cut short."""
    path = Path(path)
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        if meta["version"] != 1:
            raise ValueError(f"{path} has format {meta['version']}, not 1; prepare it again")
        train, val = (open_tokens(path, meta, split) for split in ("train", "val"))
        return Prepared(path, train, val, tok.load(path / "tokenizer.json"), meta)
    except (KeyError, TypeError, json.JSONDecodeError, FileNotFoundError) as e:
        raise ValueError(f"{path} is not whole prepared data ({e}); delete and remake it") from None


def open_tokens(path: Path, meta: dict, split: str) -> np.ndarray:
    """Map one split's ids. ValueError if the file has not the size that meta.json says."""
    file, n, dtype = path / f"{split}.bin", meta[f"{split}_tokens"], np.dtype(meta["dtype"])
    if file.stat().st_size != n * dtype.itemsize:
        raise ValueError(
            f"{file} has {file.stat().st_size} bytes, not {n} tokens; delete and remake {path}"
        )
    return np.memmap(file, dtype=dtype, mode="r") if n else np.empty(0, dtype)


def forget_pages(tokens: np.ndarray) -> None:
    """Let go of the pages of a mapped file that were read: else each stays in resident memory.

    The kernel keeps them in its cache as long as it has room. Windows trims them by itself.
    """
    mapped: object = tokens.base
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def check_length(data: Prepared, block_size: int = 1) -> None:
    """Raise ValueError if no window of block_size tokens and its targets fits the training text."""
    for split, tokens in ("training", data.train), ("validation", data.val):
        if len(tokens) < 2:
            name = data.meta["name"] or data.path
            seen = f"the {split} text has {len(tokens)} tokens"
            raise ValueError(f"{name}: {seen}; give a longer text")
    if len(data.train) <= block_size:
        raise ValueError(
            f"the training text has {len(data.train)} tokens, too short for "
            f"block_size={block_size}; give more text or --block_size {len(data.train) - 1} or less"
        )


def windows(tokens: np.ndarray, starts: np.ndarray, block_size: int):
    """Cut windows at starts (B,): x (B,T) and y (B,T), the same one place on, int64."""
    chunk = torch.from_numpy(tokens[starts[:, None] + np.arange(block_size + 1)].astype(np.int64))
    return chunk[:, :-1], chunk[:, 1:]


def batch_at(tokens: np.ndarray, step: int, *, block_size: int, batch_size: int, seed: int):
    """Batch number `step`: x and y, (B,T) each, from windows drawn at random with replacement.

    Pure: the same arguments give the same batch, so no state needs saving. Windows may overlap.
    """
    rng = np.random.default_rng((seed, step))
    starts = rng.integers(0, len(tokens) - block_size, batch_size)
    return windows(tokens, starts, block_size)


def ordered_batches(
    tokens: np.ndarray, *, block_size: int, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Cover a split from start to end: every token but the first is a target exactly once.

    x and y are (B,T), B <= batch_size; the tail is padded with target -1, which does not count.
    """
    for i in range(0, len(tokens) - 1, batch_size * block_size):
        chunk = tokens[i : i + batch_size * block_size + 1].astype(np.int64)
        n = len(chunk) - 1
        pad = -n % block_size
        x = np.pad(chunk[:-1], (0, pad)).reshape(-1, block_size)
        y = np.pad(chunk[1:], (0, pad), constant_values=-1).reshape(-1, block_size)
        forget_pages(tokens)
        yield torch.from_numpy(x), torch.from_numpy(y)
