"""Calibration text -> ids, and weights that are rounded by what layers read of it."""

from pathlib import Path

import torch
from torch import Tensor

from data.text import read_text
from model import TinyGPT
from model.adapt.gptq import balance, gptq
from model.adapt.quant import places
from model.adapt.rounding import Codes
from tok import Tokenizer

WINDOW, MOST = 512, 8192  # tokens
LONGEST = 1 << 20  # characters that are read of a text


def calibration_ids(file: Path, tokenizer: Tokenizer, model: TinyGPT) -> Tensor:
    """The first tokens of a text in windows (B,T). ValueError for fewer than a layer has inputs."""
    ids = tokenizer.encode(read_text(file)[:LONGEST])[:MOST]
    T = min(WINDOW, model.config.block_size)
    least = max(T, *(m.weight.size(1) for name, m in places(model).items() if "." in name))
    if len(ids) < least:
        raise ValueError(f"{file} has {len(ids):,} tokens; calibration needs at least {least:,}")
    return torch.tensor(ids[: len(ids) // T * T]).view(-1, T)


def calibrated(model: TinyGPT, ids: Tensor, group: int, method: str) -> dict[str, Codes]:
    """Codes of the blocks' layers by a method: awq scales them first, gptq rounds them.

    By awq alone there are none: the scaled weights are rounded to the nearest.
    """
    if "awq" in method:
        balance(model, ids, group)
    return gptq(model, ids, group) if "gptq" in method else {}
