"""data/loader.py: windows of tokens."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.loader import batch_at, ordered_batches


def test_batch_is_windows_of_the_text_shifted_by_one():
    tokens = np.arange(1000, dtype=np.uint16)
    x, y = batch_at(tokens, 3, block_size=8, batch_size=5, seed=1)
    assert x.shape == y.shape == (5, 8)
    assert x.dtype == torch.int64
    assert torch.equal(y, x + 1)
    assert torch.equal(x - x[:, :1], torch.arange(8).expand(5, 8))


def test_batch_is_a_pure_function_of_step_and_seed():
    tokens = np.arange(1000, dtype=np.uint16)

    def at(step, seed):
        return batch_at(tokens, step, block_size=4, batch_size=3, seed=seed)[0]

    assert torch.equal(at(7, 1), at(7, 1))
    assert not torch.equal(at(7, 1), at(8, 1))
    assert not torch.equal(at(7, 1), at(7, 2))


def test_batches_reach_both_ends_of_the_text():
    tokens = np.arange(12, dtype=np.uint16)
    seen = torch.cat(
        [batch_at(tokens, i, block_size=4, batch_size=9, seed=0)[1] for i in range(30)]
    )
    assert seen.min() == 1
    assert seen.max() == 11


def test_the_shortest_text_that_fits():
    x, _ = batch_at(np.arange(5, dtype=np.uint16), 0, block_size=4, batch_size=2, seed=0)
    assert x.tolist() == [[0, 1, 2, 3]] * 2


@given(st.integers(2, 60), st.integers(1, 7), st.integers(1, 4))
def test_ordered_batches_cover_each_target_once(n, block_size, batch_size):
    tokens = np.arange(n, dtype=np.uint16)
    x, y = (
        torch.cat(parts)
        for parts in zip(
            *ordered_batches(tokens, block_size=block_size, batch_size=batch_size), strict=True
        )
    )
    assert y[y >= 0].tolist() == list(range(1, n))
    assert torch.equal(x[y >= 0] + 1, y[y >= 0])
