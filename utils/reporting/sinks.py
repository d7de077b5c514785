"""Sinks that a run has if it is asked for them."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from utils.config import Settings
from utils.device import Device
from utils.reporting.events import Callback, Event
from utils.training.checkpoint import TrainState


class Sink(Protocol):
    """What writes events down."""

    def __call__(self, event: Event) -> None:
        """Hear an event."""

    def close(self) -> None:
        """Hear that no more will come."""


def check_sinks(settings: Settings) -> None:
    """Raise ValueError for --tensorboard without its extra."""
    if settings.train.tensorboard and find_spec("tensorboard") is None:
        raise ValueError("tensorboard needs an extra: pip install 'llm-tiny[tensorboard]'")


def more_sinks(
    run: Path,
    settings: Settings,
    state: TrainState,
    val: np.ndarray,
    device: Device,
    callbacks: Sequence[Callback],
) -> list[Sink]:
    """What --watch and --tensorboard ask for; `callbacks` hear what is watched, too."""
    s, sinks = settings.train, list[Sink]()
    if s.tensorboard:
        from utils.reporting.tensorboard import TensorBoard

        sinks.append(TensorBoard(run, settings, state.step))
    if s.watch:
        from utils.reporting.watch import Watch, probe

        batch = probe(val, settings.model.block_size, s.batch_size)
        tell: list[Callback] = [*sinks, *callbacks]
        sinks.append(Watch(run, state.model, batch, device, s.eval_every, state.step, tell))
    return sinks
