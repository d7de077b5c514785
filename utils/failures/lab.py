"""Where lessons are tried: a short text, a tiny model, a training without files.

The parts are those of train.py: TinyGPT, make_optimizer, lr_at, TrainStep, evaluate. A fault comes
from outside: a setting that is there anyway, or a change to a model that has been built.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

import data
from data.loader import Batch, batch_at
from data.text import read_text
from model import GPTConfig, TinyGPT
from model.gpt import Block
from tok import CharTokenizer
from utils.config import OptimConfig
from utils.device import Device
from utils.training.baselines import bigram_baseline, unigram_baseline
from utils.training.evaluate import evaluate
from utils.training.objective import next_token
from utils.training.optim import lr_at, make_optimizer
from utils.training.step import TrainStep

CPU = Device(torch.device("cpu"), torch.float32)
OPTIM = OptimConfig(lr=3e-3, min_lr=3e-4, warmup=10, weight_decay=0.1)
FASTER = OptimConfig(lr=0.01, min_lr=0.001, warmup=10, weight_decay=0.1)
SEED, ROWS, VAL = 1, 12, 20_000
TINY = Path(data.__file__).with_name("tiny.txt")


@dataclass(frozen=True)
class Text:
    """Ids of characters: the training part, and the last VAL of them for validation."""

    train: np.ndarray
    val: np.ndarray
    V: int

    @property
    def unigram(self) -> float:
        """Nats a character of knowing the frequencies of single characters, and no more."""
        return unigram_baseline(self.train, self.val, self.V, len(self.val)).loss

    @property
    def bigram(self) -> float:
        """Nats a character of knowing the frequencies of pairs."""
        return bigram_baseline(self.train, self.val, self.V, len(self.val)).loss


def read_tiny() -> Text:
    """The stories of data/tiny.txt by characters."""
    text = read_text(TINY)
    tokenizer = CharTokenizer.train([text])
    ids = np.array(tokenizer.encode(text), dtype=np.int64)
    return Text(ids[:-VAL], ids[-VAL:], tokenizer.vocab_size)


def build(text: Text, **changes: Any) -> TinyGPT:
    """A model of 2 layers x 64 for 64 characters, the same at each call but for the changes."""
    torch.manual_seed(SEED)
    shape = {"block_size": 64, "n_layer": 2, "n_head": 4, "d_model": 64, "pos": "rope"}
    return TinyGPT(GPTConfig(**{"vocab_size": text.V, **shape, **changes}))


def blocks(model: TinyGPT) -> list[Block]:
    """The model's blocks, as what they are."""
    return cast("list[Block]", list(model.blocks))


@dataclass
class History:
    """What a training showed: losses and gradient norms of each step, and validation losses.

    ended: why it stopped before its last step, or "".
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    val: dict[int, float] = field(default_factory=dict)
    ended: str = ""

    @property
    def last(self) -> float:
        """Mean loss (nats) of the last 20 steps; infinite if the training broke off."""
        return math.inf if self.ended else float(np.mean(self.losses[-20:]))


def score(model: TinyGPT, ids: np.ndarray) -> float:
    """Loss on a text, nats a character."""
    return evaluate(model, next_token, ids, len(ids), 64, CPU).loss


def train(
    model: TinyGPT,
    text: Text,
    steps: int,
    *,
    optim: OptimConfig = OPTIM,
    device: Device = CPU,
    every: int = 0,
    spoil: Callable[[int, Batch], Batch] = lambda step, batch: batch,
    watch: Callable[[int], object] = lambda step: None,
) -> History:
    """Train on ROWS windows a step, as train.py does; score validation each `every` steps.

    spoil changes the batch of a step; watch is called after each step.
    """
    history = History()
    optimizer = make_optimizer(model.parameters(), optim)
    take = TrainStep(model, next_token, optimizer, device.scaler(), device, optim.grad_clip)
    T = model.config.block_size
    for step in range(steps):
        if every and step % every == 0:
            history.val[step] = score(model, text.val)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, steps, optim)
        batch = batch_at(text.train, step, block_size=T, batch_size=ROWS, seed=SEED)
        try:
            loss, norm, _ = take([spoil(step, batch)])
        except FloatingPointError as e:
            history.ended = f"step {step}: {e}"
            return history
        history.losses.append(loss)
        history.norms.append(norm)
        watch(step)
    if every:
        history.val[steps] = score(model, text.val)
    return history
