"""Lessons from trainings that fail: each fault beside its cure, in numbers and a picture.

python -m utils.failures                    # all ten, two minutes or so
python -m utils.failures mask               # one
python -m utils.failures --list
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tok.cli import Parser, run, unknown_name


@dataclass(frozen=True)
class Lesson:
    """A fault: its title, where its function stands, the steps of each of its two trainings."""

    title: str
    module: str
    function: str
    steps: int


LESSONS = {
    "lr": Lesson("learning rate too high", "steps", "high_lr", 120),
    "warmup": Lesson("no warmup", "steps", "no_warmup", 100),
    "clip": Lesson("no clipping with float16", "steps", "no_clipping", 120),
    "mask": Lesson("missing mask: a loss that is too good", "scores", "no_mask", 160),
    "leak": Lesson("validation text in the training text", "scores", "leak", 400),
    "relu": Lesson("dead ReLU units", "units", "dead_relu", 100),
    "residual": Lesson("no residual scaling", "units", "no_residual_scaling", 60),
    "postnorm": Lesson("exploding norms in post-norm", "units", "post_norm", 100),
    "tied": Lesson("tied head with the wrong initialisation", "units", "tied_head", 120),
    "overfit": Lesson("overfitting", "scores", "overfit", 250),
}
FEWEST = 40  # steps: below, there are no 20 last ones after a warmup


def find(names: Sequence[str]) -> list[str]:
    """Names of lessons, all if none is given. ValueError for one that is not there."""
    for name in names:
        if name not in LESSONS:
            raise ValueError(unknown_name("lesson", name, list(LESSONS)))
    return list(names) or list(LESSONS)


def teach(name: str, out: Path, steps: int) -> bool:
    """Run a lesson, print what was seen, draw it. Gives whether the fault showed."""
    from importlib import import_module  # these need torch: flags are checked before

    from utils.failures.lab import read_tiny
    from utils.failures.outcome import Outcome, draw

    lesson, start = LESSONS[name], time.perf_counter()
    lessons = import_module(f"utils.failures.{lesson.module}")
    function: Callable[..., Outcome] = getattr(lessons, lesson.function)
    print(f"{name}: {lesson.title}\n  {function.__doc__}", flush=True)
    outcome = function(read_tiny(), steps or lesson.steps)
    path = out / f"{name}.png"
    draw(outcome, lesson.title, path)
    print(f"{outcome}\n  {path}, {time.perf_counter() - start:.1f} s\n", flush=True)
    return outcome.shown


def main(argv: Sequence[str] | None = None) -> int:
    """Teach the lessons named, or all. Exit status 1 if a fault did not show."""
    p = Parser(prog="python -m utils.failures", description=__doc__)
    p.add_argument("names", nargs="*", metavar="NAME", help="a lesson of --list (default: all)")
    p.add_argument("--out", default="runs/failures", help="folder for the PNGs (runs/failures)")
    p.add_argument("--steps", type=int, default=0, help="steps of each training; 0 = the lesson's")
    p.add_argument("--list", action="store_true", help="list the lessons; train nothing")
    a = p.parse_args(argv)
    names = find(a.names)
    if a.list:
        print("\n".join(f"{name:9}{LESSONS[name].title}" for name in names))
        return 0
    if a.steps and a.steps < FEWEST:
        raise ValueError(f"steps={a.steps} are too few to see anything; give {FEWEST} or more")
    import torch

    torch.set_num_threads(1)  # for models as small as these a second thread only costs
    shown = [teach(name, Path(a.out), a.steps) for name in names]
    return 0 if all(shown) else 1


if __name__ == "__main__":
    run(main)
