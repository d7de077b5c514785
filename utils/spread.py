"""Means over seeds, their spread, and whether two differ by more: Welch's t. No imports."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


def mean(xs: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return sum(xs) / len(xs) if xs else math.nan


def sd(xs: Sequence[float]) -> float:
    """The sample standard deviation, by n - 1: [1, 3] -> 1.414. NaN for fewer than two."""
    if len(xs) < 2 or not all(map(math.isfinite, xs)):
        return math.nan
    m = mean(xs)
    return math.sqrt(sum((x - m) ** 2 for x in xs) / (len(xs) - 1))


@dataclass(frozen=True)
class Difference:
    """mean(b) - mean(a), with Welch's t, its degrees of freedom and two-sided p; NaN if unknown."""

    delta: float
    spread: float  # of a run: sqrt((var a + var b) / 2)
    t: float
    df: float
    p: float
    error: float  # standard error of delta

    @property
    def margin(self) -> float:
        """Half the width of delta's 95 % interval."""
        return self.error * t_bound(self.df) if self.error else 0.0

    @property
    def seeds(self) -> float:
        """Seeds on each side for this difference to be seen in 4 of 5 tries, at p < 0.05.

        2 (1.96 + 0.84)^2 (spread / delta)^2, and one more as the spread itself is estimated.
        """
        if not self.delta or not math.isfinite(self.spread):
            return math.inf if self.delta == 0 else math.nan
        return max(2, math.ceil(2 * (1.96 + 0.84) ** 2 * (self.spread / self.delta) ** 2 + 1))


def difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Compare two groups. Of a group of one the spread is taken to be the other's (pooled t)."""
    delta, many = mean(b) - mean(a), [x for x in (a, b) if math.isfinite(sd(x))]
    if not (many and a and b):
        return Difference(delta, *[math.nan] * 5)
    if len(many) == 1:
        s, n = sd(many[0]), len(many[0])
        spread, error, df = s, s * math.sqrt(1 / len(a) + 1 / len(b)), float(n - 1)
    else:
        va, vb = sd(a) ** 2 / len(a), sd(b) ** 2 / len(b)
        spread, error = math.sqrt((sd(a) ** 2 + sd(b) ** 2) / 2), math.sqrt(va + vb)
        below = va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)
        df = (va + vb) ** 2 / below if below else float(len(a) + len(b) - 2)
    if not error:  # no spread at all: any difference is one
        t, p = (math.inf, 0.0) if delta else (0.0, 1.0)
        return Difference(delta, spread, t, df, p, error)
    return Difference(delta, spread, delta / error, df, two_sided(delta / error, df), error)


def two_sided(t: float, df: float, n: int = 2000) -> float:
    """P(|T| > |t|) of Student's t: with t = sqrt(df) tan x the density is cos(x)^(df - 1).

    Simpson's rule over x. t = 2.776, df = 4 -> 0.05.
    """
    start, end = math.atan(abs(t) / math.sqrt(df)), math.pi / 2
    h = (end - start) / n
    f = [math.cos(start + i * h) ** (df - 1) if i < n else float(df == 1) for i in range(n + 1)]
    area = h / 3 * (f[0] + f[n] + 4 * sum(f[1:n:2]) + 2 * sum(f[2:n:2]))
    norm = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(math.pi) / 2
    return min(1.0, 2 * area * math.exp(norm))


def t_bound(df: float, p: float = 0.05) -> float:
    """The t that |T| exceeds with probability p, by bisection of `two_sided`. df = 4 -> 2.776."""
    low, high = 0.0, 1e4 if math.isfinite(df) else math.nan
    while high - low > 1e-6 * high:
        t = (low + high) / 2
        low, high = (t, high) if two_sided(t, df) > p else (low, t)
    return high
