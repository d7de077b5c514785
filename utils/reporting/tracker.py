"""Turns the steps of a run into events: means, speed, loss spikes, overflows."""

import math
from collections.abc import Sequence
from typing import Any

from utils.reporting.events import Callback, Evaluation, Event, Interval, Message, Step
from utils.training.budget import Clock
from utils.training.score import Score


class Mean:
    """A running mean: `add` values, read `value`. NaN while empty."""

    def __init__(self, total: float = 0.0, count: int = 0):
        self.total, self.count = total, count

    def add(self, value: float, n: int = 1) -> None:
        """Count `value` n times."""
        self.total, self.count = self.total + value * n, self.count + n

    @property
    def value(self) -> float:
        """The mean so far."""
        return self.total / self.count if self.count else math.nan


class Spikes:
    """Finds loss spikes: more than 6 standard deviations above the mean of about 50 before."""

    def __init__(
        self, mean: float = 0.0, variance: float = 0.0, n: int = 0, since: int = 0, total: int = 0
    ):
        self.mean, self.variance, self.n = mean, variance, n
        self.since, self.total = since, total  # spikes since the last row, and in all

    def add(self, loss: float) -> bool:
        """Take a loss in; True if it is a spike. Mean and variance fade by 0.98 a step."""
        away, keep = loss - self.mean, min(0.98, self.n / (self.n + 1))
        spike = self.n >= 50 and away > 6 * math.sqrt(self.variance)
        self.variance = keep * (self.variance + (1 - keep) * away**2)
        self.mean, self.n = loss - keep * away, self.n + 1
        self.since, self.total = self.since + spike, self.total + spike
        return spike

    def state(self) -> tuple[float, float, int, int, int]:
        """What `Spikes(*state)` goes on from."""
        return self.mean, self.variance, self.n, self.since, self.total


class Tracker:
    """Turns steps and evaluations into events. `state()` goes into the checkpoint, and back in.

    Callbacks are called with each event; `steps` is the length of the run as far as is known.
    """

    def __init__(
        self,
        clock: Clock,
        tokens_per_step: int,
        log_every: int,
        steps: int,
        callbacks: Sequence[Callback] = (),
        state: dict[str, Any] | None = None,
    ):
        state = state or {}
        self.clock, self.tokens_per_step, self.log_every = clock, tokens_per_step, log_every
        self.steps, self.callbacks = steps, callbacks
        self.tokens = state.get("tokens", 0)  # since the run began
        self.mean = Mean(*state.get("mean", ()))  # of the losses since the last row
        self.since = tuple(state.get("since", (0.0, 0)))  # (seconds, step) at the last row
        self.spikes = Spikes(*state.get("spikes", ()))
        self.overflows = state.get("overflows", 0)

    def emit(self, event: Event) -> None:
        """Call every callback with an event."""
        for callback in self.callbacks:
            callback(event)

    def say(self, text: str) -> None:
        """A line for people."""
        self.emit(Message(text))

    def step(self, step: int, loss: float, lr: float, grad_norm: float) -> None:
        """Note a finished step. A gradient that is not finite is float16's overflow: skipped."""
        usual = self.spikes.mean
        self.tokens += self.tokens_per_step
        self.mean.add(loss)
        self.overflows += not math.isfinite(grad_norm)
        if self.spikes.add(loss):
            self.say(f"step {step}/{self.steps}  loss spike: {loss:.4f} after {usual:.4f}")
        seconds, last = self.since
        now, tokens = self.clock.training, self.tokens_per_step
        speed = (step - last) * tokens / max(now - seconds, 1e-9)
        self.emit(Step(step, self.steps, loss, speed, now / step * (self.steps - step)))
        if step % self.log_every == 0 or step == self.steps:
            mean, spikes = self.mean.value, self.spikes.since
            row = step, self.tokens, round(now, 3), lr, mean, grad_norm, round(speed), spikes
            self.emit(Interval(*row))
            self.mean, self.since, self.spikes.since = Mean(), (now, step), 0

    def evaluation(self, step: int, score: Score, sources: dict[str, Score], best: bool) -> None:
        """Note an evaluation: the score, of a mixture also by source."""
        seconds = round(self.clock.training, 3)
        sources = sources if len(sources) > 1 else {}
        self.emit(Evaluation(step, self.steps, self.tokens, seconds, score, sources, best))

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to report the same, with its clock's state."""
        return {
            **self.clock.state(),
            "seconds": self.clock.training,  # read by 0.1.0
            "mean": (self.mean.total, self.mean.count),
            "since": self.since,
            "spikes": self.spikes.state(),
            "overflows": self.overflows,
            "tokens": self.tokens,
        }
