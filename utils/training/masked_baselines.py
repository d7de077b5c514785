"""What frequencies alone reach where a BERT guesses: masked tokens, next sentences."""

from collections.abc import Iterable, Sequence

import numpy as np

from data.masked import Pairs
from data.rows import Segments
from utils.training.baselines import bigram, unigram
from utils.training.objective import Batch
from utils.training.score import Score


def masked_baselines(train: np.ndarray, batches: Iterable[Batch], V: int) -> dict[str, Score]:
    """Scores on masked tokens of both neighbours, of frequencies, and of knowing nothing.

    neighbours: p(y) = (p(y | left) + p(y | right)) / 2, each as in `bigram`, the latter on the text
    read backwards. A neighbour that is masked tells nothing, and so is as good as none.
    """
    x, y = (np.concatenate(part) for part in zip(*map(flat, batches), strict=True))
    at = np.flatnonzero(y >= 0)
    target = y[at]
    left = bigram(train, x[at - 1], target, V)
    right = bigram(train[::-1], x[at + 1], target, V)
    guesses = {"neighbours": (left + right) / 2, "unigram": unigram(train, V)[target]}
    scores = {name: Score(float(-np.log(p).sum()), len(p)) for name, p in guesses.items()}
    return scores | {"uniform": Score(float(np.log(V)) * len(at), len(at))}


def flat(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """What the model reads, and its targets, one row after the other."""
    return batch[0].flatten().numpy(), batch[1].flatten().numpy()


def likeness(segments: Segments, idf: np.ndarray) -> float:
    """Cosine of two texts as bags of words, rare tokens counting more (TF-IDF)."""
    a, b = (np.bincount(ids, minlength=len(idf)) * idf for ids in segments)
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9))


def bag_of_words(pairs: Pairs, scored: Sequence[Segments], is_next: np.ndarray, V: int) -> float:
    """How often a bag of words sees whether the second text goes on from the first.

    It says so where `likeness` is above a threshold, the best one for 2,000 pairs of training. A
    tiny model does not beat it where the names in a text give the answer away.
    """
    learnt, which = zip(*map(pairs.row, range(2000)), strict=True)
    seen = np.zeros(V)
    for segments in learnt:
        seen[np.unique(np.concatenate(segments))] += 1
    idf = np.log(len(learnt) / (1 + seen)).clip(min=0)
    x, follows = np.array([likeness(s, idf) for s in learnt]), np.array(which) == 0
    order = x.argsort()
    right = np.cumsum(~follows[order]) + follows.sum() - np.cumsum(follows[order])
    threshold = x[order][right.argmax()]
    found = np.array([likeness(s, idf) for s in scored]) > threshold
    return float((found == is_next).mean())
