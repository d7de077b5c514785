"""Lessons about steps that are too long: learning rate, warmup, clipping."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from data.loader import Batch
from utils.device import Device
from utils.failures.lab import FASTER, OPTIM, History, Text, build, train
from utils.failures.outcome import Outcome, Panel, both, said

FLOAT16 = Device(torch.device("cpu"), torch.float16)
WILD = 6  # batches in a row that are not text


def last(history: History) -> float:
    """Loss of the last 20 steps."""
    return history.last


def losses(runs: Mapping[str, History]) -> Panel:
    """The training loss, step by step."""
    return Panel("loss (nats a character)", "step", both(lambda h: h.losses, runs))


def norms(runs: Mapping[str, History]) -> Panel:
    """The gradient's norm, step by step; steps that overflowed are missing."""
    title = "gradient norm before clipping"
    return Panel(title, "step", both(lambda h: h.norms, runs), log=True)


def against_pairs(text: Text, runs: Mapping[str, History]) -> Outcome:
    """The outcome where a sound training must beat the frequencies of pairs."""
    notes = [
        f"frequencies alone: of single characters {text.unigram:.3f}, of pairs {text.bigram:.3f}"
    ]
    panels = [losses(runs), norms(runs)]
    return Outcome("loss of the last 20 steps", both(last, runs), text.bigram, panels, notes)


def high_lr(text: Text, steps: int) -> Outcome:
    """Broken: a learning rate of 0.3. Mended: 0.01."""
    optims = {"broken": replace(FASTER, lr=0.3, min_lr=0.03), "mended": FASTER}
    return against_pairs(text, both(lambda o: train(build(text), text, steps, optim=o), optims))


def no_warmup(text: Text, steps: int) -> Outcome:
    """Broken: 4 layers at lr 0.01 from the first step on. Mended: after 40 % of the steps."""
    rises = {"broken": 0, "mended": steps * 2 // 5}
    optims = both(lambda warmup: replace(FASTER, warmup=warmup), rises)
    deeper = partial(build, text, n_layer=4)
    return against_pairs(text, both(lambda o: train(deeper(), text, steps, optim=o), optims))


def spoil_from(first: int, char: int) -> Callable[[int, Batch], Batch]:
    """Put WILD batches of one character, again and again, in the place of text."""

    def spoil(step: int, batch: Batch) -> Batch:
        wild = torch.full_like(batch[0], char)
        return (wild, wild) if first <= step < first + WILD else batch

    return spoil


def no_clipping(text: Text, steps: int) -> Outcome:
    """Broken: float16 with its scaler, 6 wild batches, no clipping. Mended: clipped at 1."""
    first = steps // 2
    rarest = int(np.bincount(text.train, minlength=text.V).argmin())
    optim = replace(OPTIM, min_lr=OPTIM.lr, beta2=0.999)
    how = partial(train, text=text, steps=steps, device=FLOAT16, spoil=spoil_from(first, rarest))
    limits = {"broken": 0.0, "mended": 1.0}
    runs = both(lambda limit: how(build(text), optim=replace(optim, grad_clip=limit)), limits)
    skipped = both(lambda h: float((~np.isfinite(h.norms)).sum()), runs)
    notes = [
        f"gradients that overflowed, so that the scaler skipped the step: {said(skipped, '.0f')}",
        f"loss of the last 10 steps: {said(both(lambda h: float(np.mean(h.losses[-10:])), runs))}",
    ]
    rises = both(lambda h: rise(h.losses, first), runs)
    panels = [losses(runs), norms(runs)]
    return Outcome(f"rise of the loss by {WILD} wild batches", rises, 0.15, panels, notes)


def rise(losses: list[float], first: int) -> float:
    """Mean of the 10 losses after the wild batches, less that of the 10 before them."""
    after = first + WILD
    return float(np.mean(losses[after : after + 10]) - np.mean(losses[first - 10 : first]))
