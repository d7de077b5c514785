"""The parabola through points that have a lowest one: where its minimum is. NumPy alone."""

from collections.abc import Sequence

import numpy as np


def minimum(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """(x, y) of the minimum of the parabola that fits best, by least squares.

    x = 0, 1, 3 with y = (x - 2)^2 + 5 -> (2, 5). Raises ValueError for fewer than three different
    x, or if the parabola has no minimum, or has it outside the points: there it is a guess.
    """
    if len(set(xs)) < 3:
        raise ValueError(f"a parabola needs three points, not {len(set(xs))}")
    middle = float(np.mean(xs))  # far from 0 the squares would be large numbers that differ little
    a, b, c = np.polyfit(np.array(xs) - middle, ys, 2)
    x = middle - b / (2 * a) if a > 0 else np.nan
    if not min(xs) <= x <= max(xs):
        raise ValueError(f"no minimum between {min(xs):.3g} and {max(xs):.3g}; widen the range")
    return float(x), float(c - b * b / (4 * a))
