"""Rotary positions: turn pairs of q and k by an angle that grows with the place. (B,H,T,D)"""

import torch


def rope_table(T: int, D: int, theta: float = 10000.0):
    """Cosines and sines for T places, (T, D/2) each.

    Pair i turns theta**(-2i/D) radians a step (RoFormer, eq. 15).
    """
    angle = torch.outer(torch.arange(T).float(), theta ** (-torch.arange(0, D, 2) / D))  # (T, D/2)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Turn x (B,H,T,D) by the table; q.k then depends only on the distance between places."""
    a, b = x.chunk(2, -1)  # halves, not neighbours: weights of the two layouts do not interchange
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
