"""A small model of strong opinions, and what it generates: for the tests of generation."""

import torch

from model import GPTConfig, TinyGPT, generate

V, S = 19, 8
POS = ["learned", "sinusoidal", "rope", "none"]
WAYS = [(0, 0, "sdpa"), (2, 0, "naive"), (1, 3, "sdpa"), (2, 5, "naive"), (2, 7, "sdpa")]


def model(seed=0, **kwargs):
    """Blown-up weights, so that no two logits are near."""
    torch.manual_seed(seed)
    shape = {"vocab_size": V, "block_size": S, "n_layer": 3, "n_head": 4, "d_model": 32}
    m = TinyGPT(GPTConfig(**{**shape, **kwargs})).eval()
    with torch.no_grad():
        for p in m.parameters():
            p.mul_(4)
    return m


def prompts(B=3, T=4, seed=5):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def written(m, idx, steps, **kwargs):
    """All that generate yields, (B,steps), and the logits that it drew from, (B,steps,V)."""
    found = []
    ids = list(generate(m, idx, steps, callback=lambda i, z: found.append(z.clone()), **kwargs))
    return torch.stack(ids, 1), torch.stack(found, 1)
