"""How long a run goes on: so many steps, so many minutes, or until it no longer gets better."""

from utils.config import TrainConfig


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
    worn_out = 0 < train.patience * train.eval_every <= step - best_step
    return "patience" if worn_out else ""
