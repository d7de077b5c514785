"""What bench.py measures: a model of a given shape, and a call that trains it for one step.

A shape is (layers, heads, d_model, block_size, batch_size, vocab_size).
"""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch

from data.loader import batch_at
from model import GPTConfig, TinyGPT, generate
from utils.bench.peers import NanoGPT
from utils.bench.timing import peak_apart
from utils.config import OptimConfig
from utils.device import Device, pick_device
from utils.training.objective import next_token
from utils.training.optim import make_optimizer
from utils.training.step import TrainStep

Shape = tuple[int, int, int, int, int, int]
TOY: Shape = (1, 1, 8, 8, 1, 8)


def gpt(shape: Shape, **kwargs: Any) -> TinyGPT:
    """Build a TinyGPT of a shape, always with the same weights."""
    n_layer, n_head, d_model, block_size, _, vocab_size = shape
    config = GPTConfig(vocab_size, block_size, n_layer, n_head, d_model, bias=False, **kwargs)
    torch.manual_seed(0)
    return TinyGPT(config)


def stepper(model: Any, shape: Shape, device: Device) -> Callable[[], object]:
    """Give a call that takes one training step on random tokens, with our step and AdamW."""
    block_size, batch_size, V = shape[3:]
    model = model.to(device.device)
    tokens = torch.randint(V, (10_000,), generator=torch.Generator().manual_seed(0)).numpy()
    batch = batch_at(tokens, 0, block_size=block_size, batch_size=batch_size, seed=0)
    optimizer = make_optimizer(model.parameters(), OptimConfig())
    step = TrainStep(model, next_token, optimizer, device.scaler(), device)
    return lambda: step([batch])


def writer(model: TinyGPT, B: int, n: int, times: int = 1, **kwargs: Any) -> Callable[[], object]:
    """Give a call that writes n tokens in each of B rows, so many times, after a prompt of one."""
    prompt = torch.zeros((B, 1), dtype=torch.long, device=next(model.parameters()).device)
    return lambda: [list(generate(model, prompt, n, **kwargs)) for _ in range(times)]


def step_apart(
    shape: Shape, attn: str, device: str, dtype: str, nanogpt: str | None = None
) -> Callable[[], object]:
    """`stepper` for a process of its own: of nanoGPT if its directory is given."""
    where = pick_device(device, dtype)
    if nanogpt:
        return NanoGPT(nanogpt, shape, where).step
    return stepper(gpt(shape, attn=attn), shape, where)


def two_steps(shape: Shape, attn: str, device: str, dtype: str, nanogpt: str | None = None) -> None:
    """Train for two steps, with nanoGPT if its directory is given: for a process of its own."""
    step = step_apart(shape, attn, device, dtype, nanogpt)
    step()
    step()


def peak_of_steps(
    shape: Shape, a: Namespace, attn: str = "auto", nanogpt: str | None = None
) -> int:
    """Bytes that two training steps take at most; `a` has the flags device and dtype."""
    same = attn, a.device, a.dtype, nanogpt
    return peak_apart(two_steps, (shape, *same), first=(TOY, *same))
