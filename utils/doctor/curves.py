"""What curves show: learning rate too high or too low, overfitting, a start that is off."""

import math
from itertools import accumulate

from utils.doctor.record import Finding, Record, binned

FEW = 8  # rows of training losses below which a curve says nothing
LINE = 0.7  # share of the fall in the first half of the way: above it bends, below it is a line
NEAR = 0.7  # of the highest learning rate
JUMP = 0.5  # nats above what was reached before, or above ln V, that no noise explains


def third(lr: float) -> str:
    """The flag for a third of a learning rate: 0.3 -> "--lr 0.1"."""
    return f"--lr {lr / 3:.2g}"


def calmer(r: Record) -> str:
    """What makes steps shorter."""
    o = r.settings.optim
    more = [] if o.grad_clip else ["--grad_clip 1"]
    more += [] if o.warmup >= r.steps // 20 else [f"--warmup {max(10, r.steps // 10)}"]
    return ", ".join([third(o.lr), *more])


def diverged(r: Record) -> Finding | None:
    """A loss or gradient that was not finite."""
    if r.summary.get("stopped_by") != "diverged":
        return None
    seen = f"step {r.summary['steps']} of {r.settings.train.steps} was not finite"
    seen += f", at lr={r.settings.optim.lr:g}"
    return Finding("serious", "learning rate too high: training diverged", seen, calmer(r))


def rows(r: Record) -> tuple[list[float], list[float]]:
    """Training loss and learning rate of each row that has them."""
    return [loss for _, loss in r.curves["train_loss"]], [lr for _, lr in r.curves["lr"]]


def stuck(r: Record) -> float:
    """Where the training loss lay still while lr was near its highest, if above pairs; else NaN.

    A sound run falls there; one that does not often falls once lr does.
    """
    losses, rates = rows(r)
    if not rates or not r.fresh or not losses[-1] > r.bigram:
        return math.nan
    high = [x for x, lr in zip(losses, rates, strict=True) if lr >= NEAR * max(rates)]
    fall, reached = high[len(high) // 2] - high[-1], r.uniform - high[-1]
    return high[-1] if len(high) > 2 and reached > JUMP and fall < 0.03 * reached else math.nan


def too_high(r: Record) -> Finding | None:
    """A loss that jumps above ln V, or above what it had reached; spikes; a loss that lies still.

    Of a start with a wide embedding see `start`.
    """
    losses, lr = binned(r.curves["train_loss"]), r.settings.optim.lr
    if len(losses) < FEW or start(r):
        return None
    rises = [b - min(losses[: i + 1]) for i, b in enumerate(losses[1:])]
    seen = ""
    if max(losses) > r.uniform + JUMP and r.fresh:
        seen = f"the training loss was {max(losses):.2f}, above ln V = {r.uniform:.2f}"
    elif max(rises) > JUMP:
        seen = f"the training loss rose by {max(rises):.2f} nats above what it had been"
    elif r.spikes >= max(3, r.steps / 50):
        seen = f"{r.spikes} loss spikes in {r.steps} steps"
    elif math.isfinite(level := stuck(r)):
        seen = f"the training loss lay still at {level:.2f} while lr was near its highest"
        seen += f"; frequencies of pairs reach {r.bigram:.2f}"
    if not seen:
        return None
    return Finding("serious", "learning rate too high", f"{seen}, at lr={lr:g}", calmer(r))


def early(r: Record) -> float:
    """The share of the fall of the training loss in the first half of all that lr adds up to.

    A loss that falls in proportion to lr has 0.5; a healthy one 0.8 and more.
    """
    losses, rates = rows(r)
    if losses[-1] >= r.uniform:  # nothing was learnt
        return 0.0
    way = list(accumulate(rates))
    half = next(i for i, gone in enumerate(way) if gone >= way[-1] / 2)
    return (r.uniform - losses[half]) / (r.uniform - losses[-1])


def too_low(r: Record) -> Finding | None:
    """A loss that falls like a line until the end, and is not below frequencies of pairs."""
    losses, o = binned(r.curves["train_loss"]), r.settings.optim
    if diverged(r):
        return None
    if r.steps <= o.warmup:
        seen = f"{r.steps} steps, and warmup={o.warmup}: lr={o.lr:g} was never reached"
        cure = f"--warmup {r.steps // 10}, or more --steps"
        return Finding("warning", "learning rate too low: all warmup", seen, cure)
    if len(losses) < FEW or not r.fresh or not losses[-1] > r.bigram or too_high(r) or start(r):
        return None
    if (share := early(r)) > LINE:
        return None
    seen = f"the loss is {losses[-1]:.2f}, frequencies of pairs reach {r.bigram:.2f}"
    seen += f"; half of all steps, by their lr, brought {share:.0%} of what was learnt"
    title = "learning rate too low, or too few steps"
    return Finding("warning", title, f"{seen}; lr={o.lr:g}", f"--lr {3 * o.lr:.2g}, then --steps")


def overfitting(r: Record) -> Finding | None:
    """A validation loss that rose from its lowest, while the training loss went on falling."""
    val, train = r.curves["val_loss"], r.curves["train_loss"]
    if len(val) < 2 or not train:
        return None
    best, lowest = min(val, key=lambda point: point[1])
    end = val[-1][1]
    then = min(train, key=lambda point: abs(point[0] - best))[1]
    if end - lowest < max(0.03, 0.01 * lowest) or not train[-1][1] < then:
        return None
    seen = f"validation loss {lowest:.3f} at step {best}, {end:.3f} at the end"
    seen += f"; training loss {then:.3f} and {train[-1][1]:.3f}"
    more = min(0.5, r.settings.model.dropout + 0.1)
    cure = f"more text; else --patience 2, --dropout {more:.1f}, a smaller model"
    cure += "; best.pt is unharmed"
    return Finding("warning", f"overfitting since step {best}", seen, cure)


def start(r: Record) -> Finding | None:
    """A first loss far above ln V, of a tied embedding that is too wide to be a head."""
    m, losses = r.settings.model, r.curves["train_loss"]
    logits = m.emb_std * math.sqrt(m.d_model)  # their size, with a stream of size 1
    if not losses or not r.fresh or not m.tie_weights or logits < 4:
        return None
    if losses[0][1] < r.uniform + JUMP:
        return None
    seen = f"first training loss {losses[0][1]:.2f}, where ln V is {r.uniform:.2f}"
    seen += f"; emb_std={m.emb_std:g} makes logits of size {logits:.0f}"
    return Finding("serious", "a start worse than knowing nothing", seen, "--emb_std 0.02")


CHECKS = (diverged, too_high, too_low, overfitting, start)
