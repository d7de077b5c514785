"""Train a GPT on a text file, and watch it learn to write.

python train.py                                     # data/tiny.txt, a minute on a laptop
python train.py --data my.txt                       # any UTF-8 text
python train.py --data my.txt --init smollm2        # go on from a pretrained model; --lora 16
python train.py --config configs/shakespeare_char.yaml --lr 2e-3
python train.py --run tiny --resume --steps 2000    # go on where it stopped
python train.py --overfit --steps 200               # one batch, again and again: loss must go to 0
python train.py --dry-run                           # how large, how long; writes nothing
torchrun --nproc_per_node=2 -- train.py --accum 2   # as one process with --accum 4
"""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from signal import Signals
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tok.cli import Parser
from tok.cli import run as run_command
from utils.config import Settings
from utils.flags import add_settings, overfitting, run_name, settings_of
from utils.reporting.events import Callback
from utils.runs import RUNS, run_dir
from utils.training.budget import ended_by, steps_in_all
from utils.training.interrupt import Interrupt

if TYPE_CHECKING:  # what needs torch is imported when a run begins, not for --help or a wrong flag
    from utils.session import Session


def parse(argv: Sequence[str] | None, scratch: str = "") -> tuple[Namespace, Settings]:
    """Read flags and config; what a dry run has to import goes to `scratch`."""
    p = Parser(prog="train.py", usage="train.py [--SETTING VALUE ...]", description=__doc__)
    p.add_argument("--resume", action="store_true", help="go on from last.pt of --run")
    p.add_argument("--overfit", action="store_true", help="train on one batch only, to debug")
    p.add_argument("--dry-run", action="store_true", help="say how large and how long; no run")
    add_settings(p)
    args = p.parse_args(argv)
    if args.resume and args.overfit:
        raise ValueError("--overfit has nothing to --resume; leave one of them out")
    base = run_dir(run_name(args)) / "config.yaml"
    if args.resume and not base.exists():
        raise ValueError(f"no checkpoint {base.with_name('last.pt')}; leave out --resume to begin")
    runs = Path(scratch) if args.dry_run else RUNS
    settings = settings_of(args, base if args.resume else None, runs)
    return args, overfitting(settings) if args.overfit else settings


def evaluate_and_save(session: "Session") -> None:
    """Score the validation split; save last.pt, and best.pt if the score is strictly better."""
    state = session.state
    with session.clock("evaluation"):
        score, sources = session.evaluate()
        best = state.note(session.dist.broadcast([score.loss])[0])
        session.tracker.evaluation(state.step, score, sources, best)
    if best:
        session.save("best.pt")
    session.save("last.pt", keep=session.settings.train.keep)


def loop(session: "Session", stop: Interrupt, overfit: bool) -> str:
    """Evaluate, save, step, report, again and again; gives what ended it.

    The ranks agree on all that a clock or a signal decides by the messages of the last step.
    """
    from utils.training.optim import lr_at

    s, o = session.settings.train, session.settings.optim
    state, dist, tracker, clock = session.state, session.dist, session.tracker, session.clock
    step = session.train_step()
    message = partial(session.message, stop)
    messages, resumed = dist.all_gather(message()), state.step
    saved = messages[0][1]
    while True:
        messages = [message()] if dist.world_size == 1 else messages
        signal, seconds = int(max(rank[0] for rank in messages)), messages[0][1]
        tracker.steps = steps = steps_in_all(state.step, seconds, s)
        new, last = state.step > resumed, state.step >= steps
        if (new and (last or state.step % s.eval_every == 0)) or (last and not state.best_step):
            evaluate_and_save(session)
            saved = seconds
            if s.sample and not last:
                session.show_story(s.sample)
        elif new and 0 < 60 * s.save_minutes < seconds - saved:
            session.save("last.pt")
            saved = seconds
        ended = ended_by(state.step, steps, state.best_step, s)
        if ended or signal:
            return ended or Signals(signal).name

        lr = lr_at(state.step, steps, o)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1)
        with clock("data"):
            batches = session.sampler.batches(0 if overfit else state.step)
        with clock("steps"):
            loss, norm, messages = step(batches, message)
        state.step += 1
        with clock("logging"):
            tracker.step(state.step, loss, lr, norm)


def run(
    settings: Settings,
    *,
    resume: bool = False,
    overfit: bool = False,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train from the first step, or last.pt, to the end; gives what summary.json holds.

    Callbacks get every event (`utils.reporting.events`) on the main process. `stopped_by` is steps,
    minutes, patience, diverged, SIGINT or SIGTERM; after a signal no summary.json is written.
    """
    from utils.session import started

    with started(settings, callbacks, resume=resume) as session:
        try:
            with Interrupt(patient=session.dist.world_size > 1) as stop:
                ended = loop(session, stop, overfit)
        except FloatingPointError as e:
            return session.diverged(e, again=not overfit)
        return session.finish(ended, again=not overfit)


def main(argv: Sequence[str] | None = None) -> int:
    """Train. Exit status: 0, 3 for a loss that is not finite, 128 + n after signal n."""
    with TemporaryDirectory() as scratch:
        args, settings = parse(argv, scratch)
        if args.dry_run:
            from utils.forecast import forecast

            return forecast(settings, scratch, args.resume)
    ended = run(settings, resume=args.resume, overfit=args.overfit)["stopped_by"]
    if ended.startswith("SIG"):
        return 128 + Signals[ended]
    return 3 if ended == "diverged" else 0


if __name__ == "__main__":
    run_command(main)
