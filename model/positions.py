"""Position encodings: a table to add to the embeddings, or angles that rotate q and k."""

import torch
from torch import Tensor

from model.rope_scaling import scaled_frequencies


def rope_table(  # exercise: rope-table
    positions: int | Tensor, D: int, theta: float = 10000.0, scaling: str = "", T: int = 0
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions of any shape, (*shape, D/2) each; an int means 0 to that - 1.

    Pair i rotates by theta**(-2i/D) radians per position (RoFormer, eq. 15), before `scaling`.
    """
    t = torch.arange(positions, device="cpu") if isinstance(positions, int) else positions
    exponent = torch.arange(0, D, 2, device=t.device) / D  # (D/2,)
    frequency, size = scaled_frequencies(exponent, theta, scaling, T)
    angle = t[..., None].float() * frequency  # (*shape, D/2)
    return size * angle.cos(), size * angle.sin()


def sinusoid(T: int, C: int) -> Tensor:  # exercise: sinusoid
    """Table (T,C) to add to the embeddings, section 3.5 of Attention Is All You Need.

    Column 2i holds sin(t / 10000**(2i/C)), column 2i+1 the cosine: row 0 is 0, 1, 0, 1, ...
    """
    cos, sin = rope_table(T, C)
    return torch.stack((sin, cos), -1).flatten(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # exercise: rotate
    """Rotate x (B,H,T,D) by the table; q.k then depends only on relative position."""
    a, b = x.chunk(2, -1)  # halves, not neighbours: weights of the two layouts do not interchange
    left = a * cos - b * sin
    right = b * cos + a * sin
    return torch.cat((left, right), -1)
