"""A run in an experiment tracker: any module that has wandb's init, log and finish.

import trackio  # or wandb
train.run(settings, callbacks=[Tracked(trackio, settings, project="tiny")])
"""

from collections.abc import Mapping
from typing import Any, Protocol

from utils.config import Settings, flat
from utils.reporting.events import Evaluation, Event, Finished, Interval, Sample, Watched


class Tracker(Protocol):
    """What is asked of the module."""

    def init(self, *, config: Mapping[str, Any], **options: Any) -> Any:
        """Begin a run of these settings."""

    def log(self, values: Mapping[str, Any], *, step: int) -> Any:
        """Note values at a step."""

    def finish(self) -> Any:
        """End the run."""


def scalars(event: Event) -> dict[str, float]:
    """The figures of an event by the names that trackers group: train/loss, val/loss."""
    if isinstance(event, Interval):
        values = {"loss": event.train_loss, "lr": event.lr, "grad_norm": event.grad_norm}
        values |= {"tokens_per_s": event.tokens_per_s, "spikes": event.spikes}
        return {f"train/{name}": value for name, value in values.items()}
    if isinstance(event, Evaluation):
        score = event.score
        values = {"loss": score.loss, "ppl": score.ppl, **score.figures}
        values |= {f"loss/{name}": own.loss for name, own in event.sources.items()}
        return {f"val/{name}": value for name, value in values.items()}
    if isinstance(event, Watched):
        layers = event.layers.items()
        return {f"{what}/{layer}": x for layer, row in layers for what, x in row.items()}
    return {}


def writes_on(event: Finished) -> bool:
    """Whether a last sample follows the end of the run."""
    summary = event.summary
    return summary["settings"]["sample"] > 0 and summary["stopped_by"] != "diverged"


class Tracked:
    """A callback of train.run that hands a run's events on to such a module.

    Options are for its `init`: project, mode="offline" and so on. The name is the run's.
    """

    def __init__(self, module: Any, settings: Settings, **options: Any):
        self.module: Tracker = module
        self.over = False
        module.init(config=flat(settings), **{"name": settings.train.run or None, **options})

    def __call__(self, event: Event) -> None:
        """Log figures and samples; the last of them ends the tracker's run."""
        if values := scalars(event):
            self.module.log(values, step=event.step)  # type: ignore[union-attr]
        if isinstance(event, Sample):
            self.module.log({"sample": event.text}, step=event.step)
            if self.over:
                self.module.finish()
        if isinstance(event, Finished):
            self.over = True
            if not writes_on(event):
                self.module.finish()
