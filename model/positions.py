"""Positions by sines and cosines: a table to add to the stream, or angles to turn q and k by."""

import torch


def rope_table(T: int, D: int, theta: float = 10000.0):
    """Cosines and sines for T places, (T, D/2) each.

    Pair i turns theta**(-2i/D) radians a step (RoFormer, eq. 15).
    """
    angle = torch.outer(torch.arange(T).float(), theta ** (-torch.arange(0, D, 2) / D))  # (T, D/2)
    return angle.cos(), angle.sin()


def sinusoid(T: int, C: int):
    """Table (T,C) to add to the embeddings, section 3.5 of Attention Is All You Need.

    Column 2i holds sin(t / 10000**(2i/C)), column 2i+1 the cosine: row 0 is 0, 1, 0, 1, ...
    """
    cos, sin = rope_table(T, C)
    return torch.stack((sin, cos), -1).flatten(1)


def rotate(x, cos, sin):
    """Turn x (B,H,T,D) by the table; q.k then depends only on the distance between places."""
    a, b = x.chunk(2, -1)  # halves, not neighbours: weights of the two layouts do not interchange
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
