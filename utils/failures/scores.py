"""Lessons about losses that say something else than they seem to: mask, leak, overfitting."""

from dataclasses import replace

import numpy as np

from data.overlap import RUN, overlap
from model import TinyGPT
from utils.failures.lab import FASTER, History, Text, blocks, build, score, train
from utils.failures.outcome import Outcome, Panel, both, said
from utils.failures.steps import last, losses

SMALL = 6000  # characters


def see_future(model: TinyGPT, future: bool) -> TinyGPT:
    """Let attention read what comes later, or hide it."""
    for block in blocks(model):
        block.attn.causal = not future
    return model


def no_mask(text: Text, steps: int) -> Outcome:
    """Broken: attention that looks ahead while it learns. Mended: the causal mask."""
    models = both(lambda future: see_future(build(text), future), {"broken": True, "mended": False})
    runs = both(lambda model: train(model, text, steps), models)
    trained = both(lambda model: score(model, text.val), models)
    hidden = both(lambda model: score(see_future(model, False), text.val), models)
    points = {name: [trained[name], hidden[name]] for name in models}
    names = "as trained", "future hidden"
    panels = [losses(runs), Panel("validation loss (nats a character)", "", points, names=names)]
    notes = [
        f"validation loss as trained: {said(trained)}",
        f"with the future hidden, as it is when a model writes: {said(hidden)}",
    ]
    rises = {name: hidden[name] - trained[name] for name in models}
    return Outcome("rise of the loss once the future is hidden", rises, 0.5, panels, notes)


def leak(text: Text, steps: int) -> Outcome:
    """Broken: of 9,000 characters to learn from, 3,000 are the validation text. Mended: none."""
    val, unseen = text.val[: SMALL // 2], text.val[SMALL // 2 : SMALL // 2 + SMALL]
    first, others = text.train[:SMALL], text.train[SMALL : SMALL + SMALL // 2]
    texts = both(
        lambda more: replace(text, train=np.concatenate((first, more)), val=val),
        {"broken": val, "mended": others},
    )
    models = both(lambda _: build(text), texts)
    every = max(1, steps // 8)
    runs = {k: train(models[k], texts[k], steps, every=every, optim=FASTER) for k in texts}
    claimed = both(lambda h: h.val[steps], runs)
    truth = both(lambda model: score(model, unseen), models)
    shares = both(lambda t: overlap(t.train, val), texts)
    points = {name: [claimed[name], truth[name]] for name in models}
    panels = [
        Panel("validation loss (nats a character)", "step", both(lambda h: h.val, runs)),
        Panel("loss at the end", "", points, names=("validation", "unseen text")),
    ]
    notes = [
        f"validation loss: {said(claimed)}",
        f"loss on text that neither has seen: {said(truth)}",
        f"validation's runs of {RUN} characters that stand in training: {said(shares, '.0%')}",
    ]
    gaps = {name: truth[name] - claimed[name] for name in models}
    return Outcome("unseen text's loss above validation's", gaps, 0.3, panels, notes)


def overfit(text: Text, steps: int) -> Outcome:
    """Broken: learn from 1,500 characters. Mended: from all 180,000."""
    val, every = text.val[:SMALL], max(1, steps // 10)
    texts = both(
        lambda ids: replace(text, train=ids, val=val),
        {"broken": text.train[:1500], "mended": text.train},
    )
    runs = both(lambda t: train(build(text), t, steps, every=every, optim=FASTER), texts)
    curves: dict[str, dict[int, float]] = both(lambda h: h.val, runs)
    curves["broken, training"] = dict(enumerate(runs["broken"].losses))
    lowest = both(lambda h: min(h.val.values()), runs)
    best = both(lambda h: float(min(h.val, key=h.val.__getitem__)), runs)
    notes = [
        f"lowest validation loss: {said(lowest)}; at step: {said(best, '.0f')}",
        f"training loss of the last 20 steps: {said(both(last, runs))}",
    ]
    panels = [Panel("loss (nats a character)", "step", curves)]
    return Outcome(
        "validation loss at the end above its lowest", both(rise, runs), 0.1, panels, notes
    )


def rise(history: History) -> float:
    """How far the last validation loss is above the lowest."""
    values = list(history.val.values())
    return values[-1] - min(values)
