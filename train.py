"""Train a GPT on a text file, and watch it learn to write.

python train.py                                     # data/tiny.txt, two minutes on a laptop
python train.py --data my.txt                       # any UTF-8 text
python train.py --config configs/shakespeare_char.yaml --lr 2e-3
python train.py --run tiny --resume --steps 2000    # go on where it stopped
python train.py --overfit --steps 200               # one batch, again and again: loss must go to 0
"""

import math
import sys
from dataclasses import replace
from shlex import quote

import torch

from data.loader import check_length
from data.sources import feed_of, open_sources, whole
from model import TinyGPT
from tok.cli import Parser, run
from utils.checkpoint import TrainState, load_checkpoint, open_run
from utils.config import add_settings, flat, run_dir, settings_of
from utils.device import compiled, pick_device
from utils.interrupt import Interrupt
from utils.log import Log, headlines
from utils.metrics import evaluate_all
from utils.optim import lr_at, make_optimizer
from utils.step import train_step
from utils.write import write_text


def parse(argv):
    """Read flags and config: (args, settings, the run's directory)."""
    p = Parser(prog="train.py", usage="train.py [--SETTING VALUE ...]", description=__doc__)
    p.add_argument("--resume", action="store_true", help="go on from last.pt of --run")
    p.add_argument("--overfit", action="store_true", help="train on one batch only, to debug")
    add_settings(p)
    args = p.parse_args(argv)
    if args.resume and args.overfit:
        raise ValueError("--overfit has nothing to --resume; leave one of them out")
    base = run_dir(args.run if "run" in args else settings_of(args).train.run) / "config.yaml"
    settings = settings_of(args, base if args.resume and base.exists() else None)
    if args.overfit:
        settings = replace(settings, train=replace(settings.train, eval_every=settings.train.steps))
    return args, settings, run_dir(settings.train.run + ("-overfit" if args.overfit else ""))


def begin(settings, data, device) -> TrainState:
    """A fresh model, with what trains it."""
    torch.manual_seed(settings.train.seed)
    config = replace(settings.model, vocab_size=data.tokenizer.vocab_size)
    check_length(data, config.block_size)
    model = TinyGPT(config).to(device.device)
    model.recompute = settings.train.recompute
    optimizer = make_optimizer(model, settings.optim)
    return TrainState(model, optimizer, device.scaler(), flat(settings), data.meta)


def story(state, data, n) -> str:
    """Text of at most n tokens that the model makes up; the run's random state is left alone."""
    sampling = {"temperature": 0.6, "top_k": 50, "seed": state.settings["seed"] + state.step}
    documents = data.meta["documents"]
    return write_text(state.model, data.tokenizer, "", n, documents=documents, **sampling).strip()


def train(state, settings, sources, feed, device, path, log, overfit, stop) -> None:
    """The loop: evaluate, save, step, log. Returns when all steps are done, or after a signal."""
    s, o = settings.train, settings.optim
    model = compiled(state.model, device.device, log.say) if s.compile else state.model
    resumed = state.step
    while True:
        if (state.step % s.eval_every == 0 or state.step == s.steps) and state.step > resumed:
            score, parts = evaluate_all(model, sources, s.batch_size, device)
            if not math.isfinite(score.loss):
                raise FloatingPointError(f"validation loss {score.loss}")
            best = score.loss < state.best_val_loss
            log.score(state.step, score, best, parts)
            if best:
                state.best_val_loss, state.best_step = score.loss, state.step
                state.save(path / "best.pt", log.state())
            state.save(path / "last.pt", log.state())
            if s.sample and state.step < s.steps:
                log.say("    " + story(state, whole(sources), s.sample).replace("\n", "\n    "))
        if state.step >= s.steps or stop.signal:
            break

        lr = lr_at(state.step, lr=o.lr, min_lr=o.min_lr, warmup=o.warmup, steps=s.steps)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        with log.timer:
            batches = feed.batches(0 if overfit else state.step)
            loss, norm = train_step(
                model, state.optimizer, state.scaler, batches, device, o.grad_clip
            )
        state.step += 1
        log.step(state.step, loss, lr, norm)


def main(argv=None):
    """Train. Exit status: 0, 3 for a loss that is not finite, 128 + n after signal n."""
    args, settings, path = parse(argv)
    s = settings.train
    checkpoint = load_checkpoint(path / "last.pt") if args.resume else None
    device = pick_device(s.device, s.dtype)
    sources = open_sources(**settings.data.text)
    data = whole(sources)
    state = begin(settings, data, device)
    feed = feed_of(sources, settings, prefetch=device.device.type != "cpu")
    if checkpoint:
        state.load(checkpoint)
    open_run(path, settings, data.path / "tokenizer.json", resume=args.resume)

    kept = checkpoint and checkpoint["log"]
    tokens_per_step = s.batch_size * s.accum * state.model.config.block_size
    with Log(path, s, tokens_per_step, state.step, kept, sources=sources) as log:
        for line in headlines(path, settings, data, state, device):
            log.say(line)
        try:
            with Interrupt() as stop:
                train(state, settings, sources, feed, device, path, log, args.overfit, stop)
        except FloatingPointError as e:
            again = "and --resume" if (path / "last.pt").exists() else "and start again"
            print(f"error: step {state.step}: {e}; lower --lr, {again}", file=sys.stderr)
            return 3
        except BrokenPipeError:  # nobody reads what we say: keep what was learnt
            state.save(path / "last.pt", log.state())
            raise
        if stop.signal and state.step < s.steps:
            state.save(path / "last.pt", log.state())
            again = (
                ""
                if args.overfit
                else f"; go on: python train.py --run {quote(str(path))} --resume"
            )
            log.say(f"stopped at step {state.step}{again}")
            return 128 + stop.signal
        log.summary(state)
        if s.sample:
            log.say("\n" + story(state, data, 4 * s.sample))
            log.say(f"\nnext: python sample.py --run {quote(str(path))}")
    return 0


if __name__ == "__main__":
    run(main)
