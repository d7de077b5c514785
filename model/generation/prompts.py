"""What each row of a batch starts from: its prompt, checked, its random numbers, a cache."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import GPTConfig
from model.generation.cache import KVCache

Prompts = Tensor | Sequence[Any]  # (B,T), or B rows of ids of any lengths
Seeds = int | Sequence[int] | None


def prompts_of(idx: Prompts, V: int, device: torch.device) -> list[Tensor]:
    """A tensor (B,T), or B prompts of any lengths -> B tensors of ids in [0, V)."""
    if isinstance(idx, Tensor) and idx.ndim != 2:
        raise ValueError(f"the prompt has shape {tuple(idx.shape)}; give (B,T) with T >= 1")
    if not len(idx):
        raise ValueError("there is no prompt; give at least one")
    return [checked(torch.as_tensor(row, device=device), V, idx) for row in idx]


def checked(row: Tensor, V: int, idx: Prompts) -> Tensor:
    """One prompt of idx, (T,) of at least one id in [0, V), else ValueError."""
    if row.ndim != 1 or len(row) == 0:
        shape = tuple(idx.shape) if isinstance(idx, Tensor) else tuple(row.shape)
        raise ValueError(f"the prompt has shape {shape}; give (B,T) with T >= 1")
    if row.is_floating_point():
        raise ValueError(f"the prompt has dtype {row.dtype}; give ids, which are integers")
    row = row.long()  # unsigned ids, as token files have, know no minimum
    if bad := [i for i in (int(row.min()), int(row.max())) if not 0 <= i < V]:
        raise ValueError(f"the prompt has id {bad[0]}; the model knows 0 to {V - 1}")
    return row


def check_kept(kept: KVCache, config: GPTConfig, B: int, cache: bool) -> None:
    """Raise ValueError for a `kept` that is not a cache for one text of this model."""
    if not cache:
        raise ValueError("kept is a cache; leave out cache=False")
    if B != 1 or len(kept.lengths) != 1:
        raise ValueError(f"{B} prompts, kept has {len(kept.lengths)} rows; both have to be 1")
    if kept.config != config or kept.size != config.block_size:
        raise ValueError("kept is for another model; make it as KVCache(model.config, 1)")


def left_padded(prompts: list[Tensor]) -> Tensor:
    """Prompts of any lengths -> (B,T), zeros before the shorter ones."""
    T = max(map(len, prompts))
    return torch.stack([F.pad(row, (T - len(row), 0)) for row in prompts])


def ids_in(prompts: list[Tensor], V: int) -> Tensor:
    """Which ids each prompt has, (B,V) bool."""
    found = torch.zeros(len(prompts), V, dtype=torch.bool, device=prompts[0].device)
    for row, prompt in zip(found, prompts, strict=True):
        row[prompt[prompt < V]] = True
    return found


def seeds_of(seed: Seeds, B: int) -> list[int]:
    """One seed a row: seed + i for row i, a list as it is, None from the system's randomness."""
    if seed is None:
        return [torch.Generator().seed() for _ in range(B)]
    seeds = [seed + i for i in range(B)] if isinstance(seed, int) else list(seed)
    if len(seeds) != B:
        raise ValueError(f"{len(seeds)} seeds for {B} prompts; give one each, or a single number")
    if bad := [s for s in seeds if not 0 <= s < 2**64]:
        raise ValueError(f"seed={bad[0]} must be in [0, 2**64)")
    return seeds


def uniforms(seeds: list[int], device: torch.device) -> Iterator[Tensor]:
    """Numbers of [0,1), (B,) a time, without end: row i's follow from seeds[i] alone."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]  # alike on every device
    while True:
        block = [torch.rand(256, generator=generator) for generator in generators]
        yield from torch.stack(block, 1).to(device)
