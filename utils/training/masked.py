"""What a BERT learns: masked tokens, whether a sentence is the next, classes of texts.

Objectives as in `utils.training.objective`. Letters: B rows, T positions.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from model import TinyBERT
from utils.device import Device
from utils.training.objective import Batch
from utils.training.score import Score


def masked_tokens(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy of masked tokens, and of the next sentence (Devlin et al. 2019, A.2).

    batch = (x, y) of full windows, (B,T) each, a y of -1 counts nothing; or (x, y, token types,
    padding, is_next), the latter (B,). nats / count is the mean of the masked tokens plus the mean
    of the pairs. Logits are made for masked positions alone.
    """
    x, y, *more = batch
    count = torch.count_nonzero(y >= 0)
    if not more:  # of rows without an ordinary token the sum is 0, where a mean is NaN
        return model(x, y, reduction="sum", loss_only=True)[1], count
    pairs = dict(zip(("token_types", "padding", "is_next"), more, strict=True))
    _, loss = model(x, y, **pairs, loss_only=True)
    return loss * count, count


def classes(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the classes of texts, batch = (x (B,T), padding (B,T), labels (B,))."""
    x, padding, labels = batch
    _, loss = model(x, padding=padding, labels=labels, reduction="sum", loss_only=True)
    return loss, torch.tensor(len(labels), device=loss.device)


@contextmanager
def read_only(model: nn.Module) -> Iterator[None]:
    """Within it a model has no dropout, which would draw from its training's random state."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def score_masked(
    model: TinyBERT, batches: Iterable[Batch], device: Device, is_next: bool | None = None
) -> Score:
    """Score masked tokens, of batches (x, y, token types, padding): loss and accuracy.

    With is_next, whether the second sentence goes on in all of them, also how often that is seen.
    """
    nats, count, right, seen, pairs = 0.0, 0, 0, 0, 0
    for batch in batches:
        x, y, types, padding = device.move(batch)
        at = y >= 0
        with read_only(model), device.autocast():
            states = model.hidden_states(x, types, padding)
            logits = model.head(states[at]).float()
            verdict = model.next_sentence(model.pooler(states))
        nats += float(nn.functional.cross_entropy(logits, y[at], reduction="sum"))
        right += int((logits.argmax(-1) == y[at]).sum())
        count += len(logits)
        seen += int((verdict.argmax(-1) == (0 if is_next else 1)).sum())
        pairs += len(x)
    shares = {"accuracy": (right, count)}
    if is_next is not None:
        shares["next_accuracy"] = (seen, pairs)
    return Score(nats, count, shares=shares)


def score_classes(
    model: TinyBERT, batches: Iterable[Batch], device: Device
) -> tuple[Score, np.ndarray]:
    """Score classes, of batches as `classes` has them: loss, accuracy; and what was taken for what.

    The table (classes, classes) counts texts: a row for what they are, a column for what they were
    taken for.
    """
    nats = 0.0
    assert model.classifier is not None
    n = model.classifier.out_features
    table = np.zeros((n, n), np.int64)
    for batch in batches:
        x, padding, labels = device.move(batch)
        with read_only(model), device.autocast():
            states = model.hidden_states(x, padding=padding)
            logits = model.classifier(model.pooler(states)).float()
        nats += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        np.add.at(table, (labels.cpu().numpy(), logits.argmax(-1).cpu().numpy()), 1)
    right, count = int(table.trace()), int(table.sum())
    return Score(nats, count, shares={"accuracy": (right, count)}), table
