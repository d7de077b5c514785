"""A small model and a batch for it, for the tests of a training step."""

import torch

from model import GPTConfig, TinyGPT
from utils.training.step import TrainStep


def toy(**kwargs):
    torch.manual_seed(0)
    config = {"vocab_size": 20, "block_size": 8, "n_layer": 2, "n_head": 2, "d_model": 16}
    return TinyGPT(GPTConfig(**{**config, **kwargs}))


def batch(seed, rows=4):
    ids = torch.randint(20, (rows, 9), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


def train_step(model, objective, batches, optimizer, scaler, device, *, message=tuple, **kwargs):
    """One step, all in one call."""
    return TrainStep(model, objective, optimizer, scaler, device, **kwargs)(batches, message)
