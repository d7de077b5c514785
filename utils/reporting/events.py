"""The events of a run. A sink, or any callback of `train.run`, is a function of one event."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from utils.training.score import Score


@dataclass(frozen=True)
class Step:
    """A finished optimizer step."""

    step: int
    steps: int  # of the whole run, as far as is known
    loss: float  # nats
    tokens_per_s: float
    seconds_left: float


@dataclass(frozen=True)
class Interval:
    """The last `log_every` steps, together: a row of metrics.csv."""

    step: int
    tokens: int  # since the run began
    seconds: float  # of training since the run began
    lr: float
    train_loss: float  # mean over the interval, nats
    grad_norm: float  # of the last step
    tokens_per_s: float
    spikes: int  # in the interval


@dataclass(frozen=True)
class Evaluation:
    """The validation split, scored."""

    step: int
    steps: int
    tokens: int
    seconds: float
    score: Score
    sources: dict[str, Score]  # of a mixture each by itself
    best: bool  # strictly better than all before


@dataclass(frozen=True)
class Watched:
    """What --watch has measured in each layer: {"block 1": {"grad_norm": 0.1, ...}, ...}."""

    step: int
    layers: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Sample:
    """A text that the model has made up."""

    step: int
    text: str
    indent: str = ""  # of its lines, where people read it among others


@dataclass(frozen=True)
class Message:
    """A line for people."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The end of the run, with what summary.json holds."""

    summary: dict[str, Any]


Event = Step | Interval | Evaluation | Watched | Sample | Message | Finished
Callback = Callable[[Event], object]
