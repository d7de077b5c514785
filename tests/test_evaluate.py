"""Scores and baselines: numbers by hand, and against a loop that is obviously right."""

import math

import numpy as np
import pytest
import torch

from model import GPTConfig, TinyGPT
from utils.device import pick_device
from utils.reporting.tracker import Mean
from utils.training.baselines import bigram_baseline, uniform_baseline, unigram_baseline
from utils.training.evaluate import evaluate
from utils.training.objective import next_token
from utils.training.score import Score, perplexity


def test_mean():
    mean = Mean()
    assert math.isnan(mean.value)
    mean.add(1.0)
    mean.add(4.0, n=2)
    assert mean.value == 3.0


def test_perplexity_is_exp_of_cross_entropy():
    """Four equally likely tokens: the model hesitates between four."""
    loss = torch.nn.functional.cross_entropy(torch.zeros(5, 4), torch.tensor([0, 1, 2, 3, 0]))
    assert perplexity(loss.item()) == pytest.approx(4)
    assert perplexity(0.0) == 1
    assert perplexity(1e4) == math.inf


def test_score_by_hand():
    """Two tokens of ln 16 nats each, for one byte: 8 bits."""
    score = Score(nats=2 * math.log(16), tokens=2, bytes=1)
    assert score.loss == pytest.approx(math.log(16))
    assert score.ppl == pytest.approx(16)
    assert score.bits_per_byte == pytest.approx(8)


@pytest.mark.parametrize("n", [2, 9, 50])
def test_evaluate_weighs_every_token_alike(n):
    """Added up token by token in windows of 8: padding and batch size change nothing."""
    torch.manual_seed(0)
    model = TinyGPT(
        GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=2, d_model=8, dropout=0.5)
    )
    tokens = np.random.default_rng(0).integers(0, 11, n).astype(np.uint16)
    ids, nats = torch.from_numpy(tokens.astype(np.int64)), 0.0
    model.eval()
    for i in range(0, n - 1, 8):
        logits, _ = model(ids[None, i : min(i + 8, n - 1)])
        logp = logits[0].log_softmax(-1)
        nats -= sum(logp[t, ids[i + t + 1]].item() for t in range(len(logp)))
    model.train()
    cpu = pick_device("cpu")
    scores = [evaluate(model, next_token, tokens, 100, b, cpu) for b in (1, 3, 64)]
    for score in scores:
        assert score.tokens == n - 1
        assert score.nats == pytest.approx(nats, rel=1e-5)
    assert model.training  # as it was


def test_baselines_by_hand():
    """train a b a b a c: p(a) = (3+1)/(6+3). After b always a: (2 + 1 * p(a)) / (2 + 1)."""
    train, val = np.array([0, 1, 0, 1, 0, 2]), np.array([1, 0, 2])
    p = np.array([4, 3, 2]) / 9
    assert uniform_baseline(val, 3, 1).loss == pytest.approx(math.log(3))
    assert unigram_baseline(train, val, 3, 1).nats == pytest.approx(
        -math.log(p[0]) - math.log(p[2])
    )
    after_b = (2 + 1 * p[0]) / (2 + 1)  # b is followed by one kind of token, twice
    after_a = (1 + 2 * p[2]) / (3 + 2)  # a by two kinds, three times; once by c
    expected = -math.log(after_b) - math.log(after_a)
    assert bigram_baseline(train, val, 3, 1).nats == pytest.approx(expected)


def test_bigram_baseline_sums_to_one():
    """For every x, also one never seen, the probabilities of all y add up to 1."""
    rng = np.random.default_rng(1)
    train = rng.integers(0, 6, 40)
    for x in range(8):
        total = sum(
            math.exp(-bigram_baseline(train, np.array([x, y]), 8, 1).nats) for y in range(8)
        )
        assert total == pytest.approx(1)
