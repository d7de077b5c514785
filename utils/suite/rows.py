"""A figure and how sure it is: rates with Wilson's interval, means with 1.96 standard errors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from utils.spread import mean, sd

Z = 1.96  # standard normal: 95 %


@dataclass(frozen=True)
class Row:
    """One figure: what is measured, of which skill or rule, at which level (0: none), of whom."""

    measure: str  # exact, nats, repeat, again, rule
    name: str
    level: int
    of: str  # model, chance, validation, bigram
    value: float
    low: float = math.nan  # of the 95 % interval; NaN where there is none
    high: float = math.nan
    n: int = 0


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson 1927): 5 of 10 -> (0.237, 0.763); never empty at 0 or n.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    """
    p, z2 = hits / n, Z**2 / n
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n))
    low, high = ((p + z2 / 2 + side) / (1 + z2) for side in (-half, half))
    return max(0.0, low), min(1.0, high)


def rate(measure: str, name: str, level: int, of: str, hits: Sequence[bool]) -> Row:
    """The share of hits, of at least one try."""
    k, n = sum(hits), len(hits)
    return Row(measure, name, level, of, k / n, *wilson(k, n), n)


def average(measure: str, name: str, level: int, of: str, xs: Sequence[float]) -> Row:
    """The mean of independent values, 1.96 standard errors on each side."""
    m, half = mean(xs), Z * sd(xs) / math.sqrt(len(xs))
    return Row(measure, name, level, of, m, m - half, m + half, len(xs))
