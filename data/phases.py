"""Phases of a run: which texts, how often, in windows of which length, until which step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """Steps up to `until` (inf: to the end), their block_size, and a whole weight per text."""

    until: float
    block_size: int
    weights: tuple[int, ...]


def parse_counts(text: str, what: str) -> dict[str, int]:
    """Read "a=3 b=1" (or with commas) -> {"a": 3, "b": 1}. ValueError says what is wrong."""
    counts: dict[str, int] = {}
    for part in text.replace(",", " ").split():
        name, _, number = part.rpartition("=")
        if not name or name in counts or not (number.isascii() and number.isdigit()):
            raise ValueError(f"{what}: {part!r} is not a new NAME=WHOLE_NUMBER, as in tiny=3")
        counts[name] = int(number)
    return counts


def check_weights(weights: Sequence[int], what: str) -> None:
    """Raise ValueError unless the cycle of sum(weights) windows is neither empty nor absurd."""
    if not 0 < sum(weights) <= 1000:
        raise ValueError(f"{what}: weights sum to {sum(weights)}; let it be 1 to 1000")


def parse_phases(
    text: str, names: Sequence[str], weights: tuple[int, ...], block_size: int
) -> list[Phase]:
    """Read "until=250 block_size=64 tiny=1; tiny=1 plays=1" as a list of Phases.

    What a phase leaves out is the run's: all the weights, block_size. Only the last one has no
    `until`. ValueError if a phase names no source, or its block_size does not divide the run's.
    """
    found: list[Phase] = []
    parts = text.split(";") if text.strip() else [""]
    for i, part in enumerate(parts):
        values, what = parse_counts(part, "phases"), f"phases: {part.strip()!r}"
        until = values.pop("until", math.inf)
        before = found[-1].until if found else 0
        if (until == math.inf) != (i == len(parts) - 1) or until <= before:
            raise ValueError(f"{what}: each phase but the last needs an until=STEP, rising")
        T = values.pop("block_size", block_size)
        if not T or block_size % T:
            raise ValueError(f"{what}: block_size={T} does not divide the run's {block_size}")
        if unknown := sorted(set(values) - set(names)):
            raise ValueError(f"{what}: no source {unknown[0]!r}; there is {', '.join(names)}")
        own = tuple(values.get(name, 0) for name in names) if values else weights
        check_weights(own, what)
        found.append(Phase(until, T, own))
    return found
