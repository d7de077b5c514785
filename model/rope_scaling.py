"""RoPE for longer texts than a model learnt from: its frequencies, changed.

A setting says how, by the keys that Hugging Face's `rope_parameters` has:

    linear factor=4                                       Chen et al. 2023: positions divided by 4
    ntk factor=2 original_max_position_embeddings=2048    a larger base, by block_size (NTK-aware)
    yarn factor=4 original_max_position_embeddings=2048   Peng et al. 2023: fast waves stay
    llama3 factor=8 low_freq_factor=1 high_freq_factor=4 original_max_position_embeddings=8192
"""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a config is checked without torch
    from torch import Tensor

ORIGINAL = "original_max_position_embeddings"  # tokens of the texts that the model learnt from
KINDS: dict[str, dict[str, float | None]] = {  # the keys of each, and their defaults; None = needed
    "linear": {"factor": None},
    "ntk": {"factor": None, ORIGINAL: None},
    "yarn": {
        "factor": None,
        ORIGINAL: None,
        "beta_fast": 32,
        "beta_slow": 1,
        "attention_factor": 0,
    },
    "llama3": {"factor": None, ORIGINAL: None, "low_freq_factor": None, "high_freq_factor": None},
}


def parse_scaling(text: str) -> tuple[str, dict[str, float]]:
    """Read the setting: "linear factor=4" -> ("linear", {"factor": 4.0}), "" -> ("", {}).

    Raises ValueError for an unknown kind or key, a number that is missing or makes no sense.
    """
    if not text:
        return "", {}
    kind, *pairs = text.split()
    if kind not in KINDS:
        raise ValueError(f"rope_scaling={text!r}: {kind!r} is not one of {', '.join(KINDS)}")
    known, values = KINDS[kind], {}
    for pair in pairs:
        key, _, number = pair.partition("=")
        if key not in known:
            keys = ", ".join(known)
            raise ValueError(f"rope_scaling={text!r}: {key!r} is not a key of {kind}: {keys}")
        try:
            values[key] = float(number)
        except ValueError:
            raise ValueError(f"rope_scaling={text!r}: {key}={number!r} is no number") from None
    both = {key: values.get(key, default) for key, default in known.items()}
    for key, value in both.items():
        if value is None:
            raise ValueError(f"rope_scaling={text!r}: {kind} needs {key}")
        if not math.isfinite(value) or (value <= 0 and key != "attention_factor"):
            raise ValueError(f"rope_scaling={text!r}: {key}={value} must be positive")
    if kind == "llama3" and values["low_freq_factor"] >= values["high_freq_factor"]:
        raise ValueError(f"rope_scaling={text!r}: high_freq_factor must be above low_freq_factor")
    return kind, {key: float(value) for key, value in both.items() if value is not None}


def check_scaling(D: int, theta: float, text: str, block_size: int) -> None:
    """Raise ValueError as `parse_scaling`, or for heads and a base that a kind has no sense for."""
    kind, _ = parse_scaling(text)
    if kind == "yarn" and theta <= 1:
        raise ValueError(
            f"rope_theta={theta}: yarn needs waves of different lengths; 10000 is usual"
        )
    if kind == "ntk" and D < 4:
        raise ValueError(f"d_model/n_head={D}: ntk needs two pairs or more, 4 dimensions a head")


def longer_base(theta: float, values: dict[str, float], block_size: int, D: int) -> float:
    """NTK-aware: the base with which the slowest wave takes block_size as it took the original."""
    factor, original = values["factor"], values[ORIGINAL]
    longer = factor * max(block_size, original) / original - (factor - 1)
    return float(theta * longer ** (D / (D - 2)))


def canonical(kind: str, values: dict[str, float]) -> str:
    """The setting as one text: ("linear", {"factor": 4.0}) -> "linear factor=4"."""
    known = parse_scaling(" ".join([kind, *(f"{k}={v}" for k, v in values.items())]))[1]
    shown = {k: int(v) if v.is_integer() else v for k, v in known.items()}
    if not shown.get("attention_factor", 1):
        del shown["attention_factor"]
    return " ".join([kind, *(f"{k}={v}" for k, v in shown.items())])


def scaled_frequencies(
    exponent: "Tensor", theta: float, scaling: str, block_size: int
) -> "tuple[Tensor, float]":
    """Frequencies (D/2,), theta**-exponent without scaling, and what cosines and sines are times.

    exponent (D/2,) is 2i/D of pair i.
    """
    if not scaling:
        return theta**-exponent, 1.0
    kind, v = parse_scaling(scaling)
    D, factor, frequency = 2 * len(exponent), v["factor"], theta**-exponent
    if kind == "linear":
        return frequency / factor, 1.0
    if kind == "ntk":
        return longer_base(theta, v, block_size, D) ** -exponent, 1.0
    original = v[ORIGINAL]
    if kind == "llama3":
        turns = original * frequency / (2 * math.pi)  # that a wave makes in a text of that length
        low, high = v["low_freq_factor"], v["high_freq_factor"]
        share = ((turns - low) / (high - low)).clamp(0, 1)  # 0: interpolated, 1: as it was
        return frequency * share + frequency / factor * (1 - share), 1.0

    def dimension(turns: float) -> float:
        """The pair whose wave makes so many turns (YaRN, section 3.2)."""
        return D * math.log(original / (2 * math.pi * turns)) / (2 * math.log(theta))

    first = max(math.floor(dimension(v["beta_fast"])), 0)
    last = min(math.ceil(dimension(v["beta_slow"])), D - 1)
    share = 1 - ((exponent * D / 2 - first) / max(last - first, 1e-3)).clamp(0, 1)
    size = v["attention_factor"] or (0.1 * math.log(factor) + 1 if factor > 1 else 1.0)  # eq. 22
    return frequency * share + frequency / factor * (1 - share), size
