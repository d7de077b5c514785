"""AdamW and clipping in NumPy (Loshchilov & Hutter 2019, algorithm 2; Pascanu et al. 2013)."""

import math

import numpy as np

from model.numpy_gpt.params import Params

State = dict[str, Params]  # "m" and "v": the means of each gradient and of its square


def clip(G: Params, most: float) -> float:
    """Scale all gradients down, in place, to a norm of at most `most`; gives the norm before."""
    norm = math.sqrt(sum(float((g * g).sum()) for g in G.values()))
    if norm > most:
        for name in G:
            G[name] = G[name] * (most / (norm + 1e-6))
    return norm


# exercise: adamw
def adamw(
    P: Params,
    G: Params,
    state: State,
    step: int,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.1,
    eps: float = 1e-8,
) -> None:
    """One step, numbered from 1, in place. Only matrices decay, not biases and gains.

    m and v start at 0, so both are divided by what they have seen: 1 - beta^step.
    """
    m, v = (state.setdefault(name, {}) for name in ("m", "v"))
    seen = [1 - beta**step for beta in betas]
    for name, g in G.items():
        m[name] = betas[0] * m.get(name, 0) + (1 - betas[0]) * g
        v[name] = betas[1] * v.get(name, 0) + (1 - betas[1]) * g * g
        if P[name].ndim >= 2:
            P[name] = P[name] * (1 - lr * weight_decay)
        P[name] = P[name] - lr * (m[name] / seen[0]) / (np.sqrt(v[name] / seen[1]) + eps)
