"""Weights as small integers: 8 bits with a scale a row, 4 bits with scale and zero a group.

8 bits: w = s q, q in -127..127, s = max |w| / 127 of a row (an output channel).
4 bits: w = s q + z, q in 0..15, s = (max - min) / 15, z = min of a `group` of neighbours in a row.
Letters: N rows (outputs), K columns (inputs), G = K / group.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BITS = 4, 8
GROUPS = 32, 64, 128
LARGEST = 65504.0  # of float16, which scale and zero of a group are kept in


@dataclass(frozen=True)
class Codes:
    """A matrix (N,K) in small integers.

    8 bits: q (N,K) int8, scale (N,1) float32, no zero. 4 bits: q (N,K/2) uint8, two a byte
    (`packed`), scale and zero (N,G) float16.
    """

    q: Tensor
    scale: Tensor
    zero: Tensor | None = None

    @property
    def bits(self) -> int:
        """Of an integer: 4 or 8."""
        return 8 if self.zero is None else 4

    @property
    def shape(self) -> tuple[int, int]:
        """(N,K) of the weights."""
        return len(self.q), self.q.size(1) * 8 // self.bits

    @property
    def group(self) -> int:
        """Weights that share a scale."""
        return self.shape[1] // self.scale.size(1)

    def __getitem__(self, rows: Tensor) -> "Codes":
        """The codes of some rows (n,)."""
        return Codes(self.q[rows], self.scale[rows], None if self.zero is None else self.zero[rows])


def check_codes(codes: Codes, name: str, shape: torch.Size) -> None:
    """Raise ValueError for codes that are not of a matrix (N,K), or not laid out as ours are."""
    dtypes = (torch.int8, torch.float32) if codes.bits == 8 else (torch.uint8, torch.float16)
    found = codes.q.dtype, codes.scale.dtype
    G = 1 if codes.bits == 8 else shape[1] // max(codes.group, 1)
    whole = codes.shape == tuple(shape) and tuple(codes.scale.shape) == (shape[0], G)
    if (
        found != dtypes
        or not whole
        or (codes.zero is not None and codes.zero.shape != codes.scale.shape)
    ):
        raise ValueError(
            f"{name} has codes {tuple(codes.q.shape)} of {found[0]}, not of {tuple(shape)}"
        )


def packed(q: Tensor) -> Tensor:
    """Two integers 0..15 a byte, (N,K) -> (N,K/2): [1, 2, 3, 4] -> [0x21, 0x43]."""
    q = q.to(torch.uint8)
    return q[:, ::2] | q[:, 1::2] << 4


def unpacked(q: Tensor) -> Tensor:
    """Undo `packed`, (N,K/2) -> (N,K) uint8."""
    return torch.stack((q & 15, q >> 4), -1).flatten(1)


def check_weight(w: Tensor) -> None:
    """Raise ValueError for a weight that is not finite, or larger than float16 can say."""
    most = float(w.abs().max())
    if not most <= LARGEST:
        raise ValueError(f"a weight of {most} cannot be rounded; the most is {LARGEST:.0f}")


def check_group(K: int, group: int) -> None:
    """Raise ValueError unless rows of K weights fall into whole groups."""
    if group not in GROUPS:
        raise ValueError(f"group={group} must be one of {', '.join(map(str, GROUPS))}")
    if group > K:
        cure = "take --int8" if min(GROUPS) > K else f"take --group {min(GROUPS)}, or --int8"
        raise ValueError(f"a row of {K} weights is less than a group of {group}; {cure}")
    if K % group:
        fits = [g for g in GROUPS if K % g == 0]
        cure = f"take --group {fits[-1]}" if fits else "take --int8"
        raise ValueError(f"group={group} does not divide a row of {K} weights; {cure}")


def nonzero(scale: Tensor) -> Tensor:
    """A scale to divide by: 1 where all weights are equal."""
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def int8_codes(w: Tensor) -> Codes:
    """Round (N,K) to the nearest of 255 values a row, evenly spread round 0."""
    check_weight(w)
    w = w.float()
    scale = w.abs().amax(1, keepdim=True) / 127
    return Codes((w / nonzero(scale)).round().to(torch.int8), scale)


def grid(w: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero, float16, that spread 16 values from least to largest of the last dimension.

    Both are (...,1) for w (...,group).
    """
    low, high = w.amin(-1, keepdim=True), w.amax(-1, keepdim=True)
    return ((high - low) / 15).half(), low.half()


def nearest(w: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """The integers 0..15, as floats, whose values are nearest to w."""
    scale, zero = scale.float(), zero.float()
    return ((w - zero) / nonzero(scale)).round().clamp(0, 15)


def int4_codes(w: Tensor, group: int) -> Codes:
    """Round (N,K) to the nearest of 16 values a group. ValueError as `check_group`."""
    check_group(w.size(1), group)
    check_weight(w)
    groups = w.float().unflatten(1, (-1, group))  # (N,G,group)
    scale, zero = grid(groups)
    q = nearest(groups, scale, zero).flatten(1)
    return Codes(packed(q), scale.squeeze(-1), zero.squeeze(-1))


def codes_of(w: Tensor, bits: int, group: int) -> Codes:
    """Round (N,K) to 8 or 4 bits; `group` is of the latter. ValueError for other bits."""
    if bits not in BITS:
        raise ValueError(f"bits={bits} must be 4 or 8")
    return int8_codes(w) if bits == 8 else int4_codes(w, group)


def values(codes: Codes) -> Tensor:
    """The weights (N,K) in float32 that codes stand for."""
    if codes.zero is None:
        return codes.q.float().mul_(codes.scale.float())
    N, K = codes.shape
    scale, zero = codes.scale.float()[..., None], codes.zero.float()[..., None]  # (N,G,1)
    w = unpacked(codes.q).float().view(N, -1, codes.group)
    return w.mul_(scale).add_(zero).view(N, K)  # in place: memory is what takes the time


def rounded(w: Tensor, bits: int, group: int) -> Tensor:
    """`values(codes_of(w, bits, group))` of (N,K) to the bit, without making integers or checks."""
    w = w.float()
    if bits == 8:
        scale = w.abs().amax(1, keepdim=True) / 127
        return (w / nonzero(scale)).round() * scale
    groups = w.unflatten(1, (-1, group))  # (N,G,group)
    scale, zero = grid(groups)
    return (nearest(groups, scale, zero) * scale.float() + zero.float()).flatten(1)
