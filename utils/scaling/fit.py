"""Laws of loss by size and tokens, and how they are fitted: Hoffmann et al. 2022, approaches 2, 3.

N parameters, D tokens, C floating-point operations, L nats. NumPy alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from utils.parabola import minimum

Array = NDArray[np.float64]
Law = Callable[[Array, Array, Array], Array]  # (K,P) parameters, N (n,), D (n,) -> log L (K,n)
DELTA = 1e-3  # of Huber's loss, on residuals of log L (Hoffmann et al., appendix D.3)


def chinchilla(theta: Array, N: Array, D: Array) -> Array:
    """log(E + A / N^alpha + B / D^beta), theta = (log E, log A, log B, alpha, beta)."""
    e, a, b, alpha, beta = (column[:, None] for column in theta.T)
    terms = a - alpha * np.log(N), b - beta * np.log(D)
    return np.asarray(np.logaddexp(e, np.logaddexp(*terms)))


def kaplan(theta: Array, N: Array, D: Array) -> Array:
    """log of ((Nc / N)^(alpha_N / alpha_D) + Dc / D)^alpha_D (Kaplan et al. 2020, eq. 1.5).

    theta = (log Nc, log Dc, alpha_N, alpha_D). It has no irreducible loss.
    """
    nc, dc, alpha_N, alpha_D = (column[:, None] for column in theta.T)
    terms = alpha_N / alpha_D * (nc - np.log(N)), dc - np.log(D)
    return np.asarray(alpha_D * np.logaddexp(*terms))


def starts(law: Law, N: Array, D: Array, L: Array) -> Array:
    """Where a fit begins, many places (K,P): exponents, and how much of the loss each term is."""
    n, d, low = np.log(N).mean(), np.log(D).mean(), float(L.min())
    exponents = (0.15, 0.3, 0.6, 1.0)
    if law is kaplan:
        pairs = product((0.05, 0.1, 0.2, 0.4), repeat=2)
        return np.array([(n + np.log(low) / x, d, x, y) for x, y in pairs])
    every = product((0.3, 0.6, 0.9), (0.1, 0.3), exponents, exponents)
    return np.array(
        [(np.log(e * low), np.log(s) + x * n, np.log(s) + y * d, x, y) for e, s, x, y in every]
    )


def huber(residual: Array, delta: float = DELTA) -> Array:
    """r^2 / 2 near 0, delta (|r| - delta / 2) beyond delta: a run that went wrong counts little."""
    r = np.abs(residual)
    return np.where(r <= delta, r * r / 2, delta * (r - delta / 2))


def slopes(law: Law, theta: Array, N: Array, D: Array, h: float = 1e-5) -> Array:
    """How log L changes with each parameter, (K,n,P), by central differences."""
    steps = np.eye(theta.shape[1]) * h
    columns = [(law(theta + s, N, D) - law(theta - s, N, D)) / (2 * h) for s in steps]
    return np.stack(columns, -1)


def descend(
    law: Law, theta: Array, N: Array, D: Array, L: Array, counts: Array, rounds: int = 200
) -> tuple[Array, Array]:
    """Fit all K starts (K,P) at once: (parameters, losses (K,)). counts (K,n) weigh the runs.

    Levenberg and Marquardt's step, with Huber's weights min(1, delta / |r|): least squares again
    and again (Holland & Welsch 1977).
    """
    log_L, damping = np.log(L), np.full(len(theta), 1e-2)

    def loss(theta: Array) -> Array:
        found = (counts * huber(law(theta, N, D) - log_L)).sum(1)
        return np.where(np.isfinite(found), found, np.inf)

    best, still = loss(theta), np.zeros(len(theta))
    for _ in range(rounds):
        if still.min() > 9:  # none has gained anything in ten rounds
            break
        r, J = law(theta, N, D) - log_L, slopes(law, theta, N, D)
        w = counts * np.minimum(1, DELTA / np.maximum(np.abs(r), 1e-12))
        Jw = J * w[:, :, None]
        H, g = Jw.swapaxes(1, 2) @ J, (Jw.swapaxes(1, 2) @ r[:, :, None])[:, :, 0]
        size = np.einsum("kpp->kp", H) + 1e-12
        H = H + (damping[:, None] * size)[:, :, None] * np.eye(theta.shape[1])
        new = theta - np.linalg.solve(H, g[:, :, None])[:, :, 0]
        after = loss(new)
        better = after < best
        still = np.where(after < best * (1 - 1e-6), 0, still + 1)
        theta = np.where(better[:, None], new, theta)
        best = np.where(better, after, best)
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-9, 1e9)
    return theta, best


@dataclass(frozen=True)
class Fit:
    """A law, its parameters (P,), those of resampled runs (K,P), residuals of log L (n,)."""

    law: Law
    theta: Array
    resampled: Array
    residuals: Array

    def loss(self, N: float, D: float) -> float:
        """What the law says of a run."""
        return float(np.exp(self.law(self.theta[None], np.array([N]), np.array([D])))[0, 0])

    def interval(self, N: float, D: float, share: float = 0.9) -> tuple[float, float]:
        """Where a new run's loss should lie: the resampled fits, each with all the residuals."""
        logs = self.law(self.resampled, np.array([N]), np.array([D]))
        every = np.exp(logs - self.residuals[None])
        low, high = np.quantile(every, [(1 - share) / 2, (1 + share) / 2])
        return float(low), float(high)

    def spread(self, of: Callable[[Array], Array]) -> tuple[float, float, float]:
        """(value, 5 %, 95 %) of what `of` makes of the parameters (K,P)."""
        low, high = np.quantile(of(self.resampled), [0.05, 0.95])
        return float(of(self.theta[None])[0]), float(low), float(high)

    def best_size(self, flops: Callable[[float], float], C: float, sizes: Sequence[float]) -> float:
        """Of the sizes the one with the lowest loss for C; flops(N) are those of a token."""
        return min(sizes, key=lambda N: self.loss(N, C / flops(N)))


def fit(law: Law, N: Array, D: Array, L: Array, *, resamples: int = 200, seed: int = 0) -> Fit:
    """Fit a law from many starts, and again to runs drawn with replacement, from its best ones.

    Raises ValueError for fewer runs than it has parameters and two more.
    """
    begin = starts(law, N, D, L)
    if len(L) < begin.shape[1] + 2:
        raise ValueError(f"{len(L)} runs are too few for a law with {begin.shape[1]} parameters")
    theta, losses = descend(law, begin, N, D, L, np.ones((len(begin), len(L))))
    best = theta[np.argsort(losses)[:2]]
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(L), np.full(len(L), 1 / len(L)), resamples).astype(float)
    again, losses = descend(
        law, np.tile(best, (resamples, 1)), N, D, L, np.repeat(counts, len(best), 0)
    )
    which = losses.reshape(resamples, -1).argmin(1)
    resampled = again.reshape(resamples, len(best), -1)[np.arange(resamples), which]
    residuals = law(best[:1], N, D)[0] - np.log(L)
    return Fit(law, best[0], resampled, residuals)


def line(x: Array, y: Array) -> tuple[float, float, float]:
    """(slope, its standard error, intercept) by least squares; the error is NaN for two points."""
    slope, intercept = np.polyfit(x, y, 1)
    left = y - slope * x - intercept
    if len(x) < 3:
        return float(slope), float("nan"), float(intercept)
    error = np.sqrt((left @ left) / (len(x) - 2) / ((x - x.mean()) ** 2).sum())
    return float(slope), float(error), float(intercept)


def isoflop_minimum(N: Sequence[float], L: Sequence[float]) -> tuple[float, float]:
    """(N, L) of the least loss of a budget: the parabola over log N (approach 2)."""
    x, y = minimum([float(np.log(n)) for n in N], L)
    return float(np.exp(x)), y
