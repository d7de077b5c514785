"""Train a GPT on a text file, and watch it learn to write.

python train.py                                     # data/tiny.txt, two minutes on a laptop
python train.py --data my.txt                       # any UTF-8 text
python train.py --config configs/shakespeare_char.yaml --lr 2e-3
python train.py --run tiny --resume --steps 2000    # go on where it stopped
python train.py --overfit --steps 200               # one batch, again and again: loss must go to 0
python train.py --dry-run                           # how large, how long; writes nothing
torchrun --nproc_per_node=2 -- train.py --accum 2   # as one process with --accum 4
"""

from dataclasses import replace
from shlex import quote
from tempfile import TemporaryDirectory

import torch

from data.loader import check_length
from data.sources import feed_of, open_sources, whole
from model import TinyGPT
from tok.cli import Parser, run
from utils.budget import ended_by, steps_in_all
from utils.checkpoint import TrainState, load_checkpoint, open_run
from utils.config import add_settings, flat, run_dir, settings_of
from utils.device import compiled, memory_advice, pick_device
from utils.forecast import forecast
from utils.interrupt import Interrupt
from utils.log import Log, headlines, tokens_per_step
from utils.metrics import evaluate_all
from utils.optim import lr_at, make_optimizer
from utils.ranks import averaged, joined, sharded
from utils.step import train_step
from utils.write import story


def parse(argv):
    """Read flags and config: (args, settings, the run's directory)."""
    p = Parser(prog="train.py", usage="train.py [--SETTING VALUE ...]", description=__doc__)
    p.add_argument("--resume", action="store_true", help="go on from last.pt of --run")
    p.add_argument("--overfit", action="store_true", help="train on one batch only, to debug")
    p.add_argument("--dry-run", action="store_true", help="say how large and how long; no run")
    add_settings(p)
    args = p.parse_args(argv)
    if args.resume and args.overfit:
        raise ValueError("--overfit has nothing to --resume; leave one of them out")
    base = run_dir(args.run if "run" in args else settings_of(args).train.run) / "config.yaml"
    settings = settings_of(args, base if args.resume and base.exists() else None)
    if args.overfit:
        settings = replace(settings, train=replace(settings.train, eval_every=settings.train.steps))
    return args, settings, run_dir(settings.train.run + ("-overfit" if args.overfit else ""))


def begin(settings, data, device, ranks) -> TrainState:
    """A fresh model, with what trains it."""
    torch.manual_seed(settings.train.seed)
    config = replace(settings.model, vocab_size=data.tokenizer.vocab_size)
    check_length(data, config.block_size)
    model = TinyGPT(config).to(device.device)
    model.recompute = settings.train.recompute
    if settings.train.parallel == "fsdp":
        model = sharded(model, device, ranks)
    ranks.reseed(settings.train.seed)
    optimizer = make_optimizer(model, settings.optim, device.dtype)
    return TrainState(model, optimizer, device.scaler(), flat(settings), data.meta, ranks=ranks)


def train(state, settings, sources, feed, device, path, log, overfit, stop) -> str:
    """The loop: evaluate, save, step, log. Gives what ended it, or "" if a signal did."""
    s, o, ranks = settings.train, settings.optim, state.ranks
    model = compiled(state.model, device.device, log.say) if s.compile else state.model
    learner, resumed = averaged(model, ranks, s.parallel), state.step
    while True:
        steps = log.length(ranks.agree(steps_in_all(state.step, log.spent(), s)))
        if (state.step % s.eval_every == 0 or state.step >= steps) and state.step > resumed:
            with log.clock("evaluation"):
                score, parts = evaluate_all(model, sources, s.batch_size, device)
                best = state.note(ranks.agree(score.loss))
                log.score(state.step, score, best, parts)
            with log.clock("saving"):
                if best:
                    state.save(path / "best.pt", log.state())
                state.save(path / "last.pt", log.state(), s.keep)
            if s.sample and ranks.first and state.step < steps:
                with log.clock("samples"):
                    log.say("    " + story(state, whole(sources), s.sample).replace("\n", "\n    "))
        stop.signal = int(max(ranks.places([stop.signal])))
        ended = ended_by(state.step, steps, state.best_step, s)
        if ended or stop.signal:
            return ended

        lr = lr_at(state.step, steps, o)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        with log.clock("data"):
            batches = feed.batches(0 if overfit else state.step)
        with log.clock("steps"):
            update = state.optimizer, state.scaler
            loss, norm = train_step(learner, *update, batches, device, o.grad_clip, ranks)
        state.step += 1
        with log.clock("logging"):
            log.step(state.step, loss, lr, norm)


def life(args, settings, path, device, ranks, scratch) -> int:
    """A run from its first line to its last; gives the exit status."""
    s = settings.train
    checkpoint = load_checkpoint(path / "last.pt") if args.resume else None
    with ranks.in_turn():
        sources = open_sources(**settings.data.text, scratch=scratch)
    data = whole(sources)
    state = begin(settings, data, device, ranks)
    place = {"rank": ranks.rank, "world": ranks.world}
    feed = feed_of(sources, settings, **place, prefetch=device.device.type != "cpu")
    if args.dry_run:
        return forecast(state, settings, device, feed.draw(0))
    kept = state.load(checkpoint) if checkpoint else None
    if ranks.first:
        open_run(path, settings, data.path / "tokenizer.json", resume=args.resume)
    tokens = tokens_per_step(settings, ranks)
    with Log(path, s, tokens, state.step, kept, sources=sources, ranks=ranks) as log:
        log.say("\n".join(headlines(path, settings, data, state, device)))
        try:
            with Interrupt(patient=ranks.world > 1) as stop:
                ended = train(state, settings, sources, feed, device, path, log, args.overfit, stop)
        except FloatingPointError as e:
            return log.diverged(state, e)
        except BrokenPipeError:  # nobody reads what we say: keep what was learnt
            state.save(path / "last.pt", log.state())
            raise
        if not ended:
            state.save(path / "last.pt", log.state())
            log.stopped(state.step, again=not args.overfit)
            return 128 + stop.signal
        log.summary(state, ended)
        if s.sample and ranks.first:
            log.say("\n" + story(state, data, 4 * s.sample))
            log.say(f"\nnext: python sample.py --run {quote(str(path))}")
    return 0


def main(argv=None):
    """Train. Exit status: 0, 3 for a loss that is not finite, 128 + n after signal n."""
    args, settings, path = parse(argv)
    device = pick_device(settings.train.device, settings.train.dtype)
    with memory_advice(settings.train), joined(device) as ranks, TemporaryDirectory() as tmp:
        return life(args, settings, path, device, ranks, tmp if args.dry_run else None)


if __name__ == "__main__":
    run(main)
