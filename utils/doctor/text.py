"""What the text shows: validation in training, too many passes, unused tokens, easy baselines."""

import math

import numpy as np

from data.overlap import RUN, overlap
from tok import BPETokenizer
from utils.doctor.record import MOST, Finding, Record

PASSES = 16  # passes over a text after which another one teaches little (Muennighoff et al. 2023)
RARE = 5  # occurrences below which a token is hardly learnt


def leak(r: Record) -> Finding | None:
    """Validation that stands in training more than the training text repeats itself."""
    if r.data is None or (share := r.data.meta.get("val_overlap", 0.0)) <= 0.01:
        return None
    train, n = r.data.train[:MOST], min(len(r.data.val), len(r.data.train) // 4)
    own = max(overlap(train[n:], train[:n]), overlap(train[:-n], train[-n:]))
    if share < own + 0.1 and not (share > own + 0.02 and 1 - share < (1 - own) / 4):
        return None
    seen = f"{share:.0%} of the runs of {RUN} tokens in validation also stand in training"
    seen += f"; a part of the training text of that length shares {own:.0%} with the rest"
    cure = "take copies out of the text, then train again: split first, copy and shuffle afterwards"
    return Finding("serious", "validation text in training", seen, cure)


def passes(r: Record) -> Finding | None:
    """A text that was seen many times."""
    s, tokens = r.settings, r.meta.get("train_tokens", math.inf)
    times = r.summary.get("epochs", r.steps * s.tokens_per_step / tokens)
    if times <= PASSES:
        return None
    seen = f"{times:.0f} times {tokens:,} tokens"
    steps = max(1, round(r.steps * PASSES / times))
    cure = f"more text (--mixture), or --steps {steps}, --dropout {s.model.dropout + 0.1:.1f}"
    return Finding("note", f"the data was seen {times:.0f} times", seen, cure)


def vocabulary(r: Record) -> Finding | None:
    """Tokens beyond single bytes that hardly occur: rows of the embedding that nobody trained."""
    if r.data is None or not r.fresh:
        return None
    tokenizer = r.data.tokenizer
    count = np.bincount(r.data.train[:MOST], minlength=r.vocab_size)
    bpe = isinstance(tokenizer, BPETokenizer)
    special = set(tokenizer.special_tokens.values())
    ids = [i for i in range(256 if bpe else 0, tokenizer.vocab_size) if i not in special]
    rare, unused = int((count[ids] < RARE).sum()), int((count[ids] == 0).sum())
    if rare <= len(ids) / 2:
        return None
    seen = f"of {len(ids):,} tokens{' longer than a byte' if bpe else ''} {rare:,} occur fewer than"
    seen += f" {RARE} times in {len(r.data.train):,}, {unused:,} never"
    fewer = 256 * bpe + len(ids) - rare
    cure = f"--vocab {max(300, fewer)}" if bpe else "clean the text of rare characters"
    return Finding("warning", "unused vocabulary", seen, cure)


def above_bigram(r: Record) -> Finding | None:
    """A validation loss that a table of pairs beats."""
    losses = [loss for _, loss in r.curves["val_loss"]]
    if not losses or not min(losses) > r.bigram:
        return None
    seen = f"lowest validation loss {min(losses):.3f}, frequencies of pairs {r.bigram:.3f}"
    seen += f" (knowing nothing: {r.uniform:.3f})"
    cure = "see what is said of the learning rate and the layers; else more --steps"
    return Finding("serious", "loss above the bigram baseline", seen, cure)


CHECKS = (leak, passes, vocabulary, above_bigram)
