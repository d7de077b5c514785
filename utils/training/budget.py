"""Where a run's time goes, and how long it goes on: steps, minutes, or while it gets better."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from utils.config import TrainConfig

PARTS = ("steps", "data", "logging", "evaluation", "saving", "samples")  # of a run's seconds


class Clock:
    """Adds up seconds by what they are spent on: `with clock("data"): ...`.

    `Clock(**clock.state())` goes on where another process stopped.
    """

    def __init__(
        self,
        parts: dict[str, float] | None = None,
        spent: float = 0.0,
        now: Callable[[], float] = time.perf_counter,
    ):
        self.parts, self.before, self.now, self.start = dict(parts or {}), spent, now, now()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time inside `with` as this part's, also if it ends in an error."""
        start = self.now()
        try:
            yield
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + self.now() - start

    def spent(self) -> float:
        """Seconds since the run began, evaluation included, those between two starts not."""
        return self.before + self.now() - self.start

    @property
    def training(self) -> float:
        """Seconds of training: steps and their data, not evaluation and what else there is."""
        return self.parts.get("steps", 0.0) + self.parts.get("data", 0.0)

    def seconds_in(self) -> dict[str, float]:
        """Seconds spent in each of PARTS, and in whatever else there is between them."""
        parts = {part: self.parts.get(part, 0.0) for part in PARTS}
        return parts | {"other": self.spent() - sum(parts.values())}

    def state(self) -> dict[str, Any]:
        """What another Clock goes on from."""
        return {"parts": dict(self.parts), "spent": self.spent()}


def steps_in_all(step: int, seconds: float, train: TrainConfig) -> int:
    """Steps of the whole run: `steps`, or with `minutes` as many as fit at the pace so far.

    After step 100 and 30 s, minutes=1 -> 200; once the time is up, the step itself. The schedule
    takes this for its end, so that min_lr is reached when the time is up.
    """
    budget = 60 * train.minutes
    if not budget or not step:  # before the first step `steps` is as good a guess as any
        return train.steps
    return step if seconds >= budget else max(step + 1, int(step * budget / seconds))


def ended_by(step: int, steps: int, best_step: int, train: TrainConfig) -> str:
    """Which budget is used up after a step: "steps", "minutes", "patience"; "" if none."""
    if step >= steps:
        return "minutes" if train.minutes else "steps"
    waited = train.patience * train.eval_every
    out_of_patience = step % train.eval_every == 0 and 0 < waited <= step - best_step
    return "patience" if out_of_patience else ""
