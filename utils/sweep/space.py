"""What a sweep tries: settings with several values, or a range; seeds; a budget for all.

A point is {setting: value} without the seed: it is trained once with each.
"""

import itertools
import math
import random
import shlex
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tok import KINDS
from utils.config import FIELDS, Settings, coerce
from utils.flags import is_default, settings_of

Values = dict[str, Any]


@dataclass(frozen=True)
class Range:
    """All numbers from low to high, log-uniform where high is 10 times low or more."""

    low: float
    high: float
    whole: bool = False  # integers only

    @property
    def log(self) -> bool:
        """Whether factors matter, and not differences."""
        return 0 < 10 * self.low <= self.high

    def draw(self, rng: random.Random) -> float:
        """A number of the range, a float to 4 digits."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        x = rng.uniform(low, high)
        return self.fit(math.exp(x) if self.log else x)

    def fit(self, x: float) -> float:
        """The number that is tried for x: short enough to be typed again."""
        return round(x) if self.whole else float(f"{x:.4g}")

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"


Choices = list[Any] | Range


def choices_of(name: str, texts: Sequence[str]) -> Choices:
    """A flag's words: ["1e-3", "1e-2"] -> [0.001, 0.01]; ["1e-3..1e-2"] -> Range(0.001, 0.01)."""
    kind = FIELDS[name].type
    if len(texts) > 1 or ".." not in texts[0] or kind not in (int, float):
        return [coerce(name, text) for text in texts]
    low, high = (coerce(name, end) for end in texts[0].split("..", 1))
    if low >= high:
        raise ValueError(f"{name}={texts[0]} is empty; write the smaller number first")
    return Range(low, high, kind is int)


@dataclass(frozen=True)
class Sweep:
    """What is tried, from which config, where the runs lie; tokens for each, 0 = by its steps."""

    config: str
    path: Path
    space: Mapping[str, Choices]  # the seed is none of it
    seeds: Sequence[int] = ()  # none: the config's
    tokens: int = 0

    def __post_init__(self) -> None:
        kinds = self.space.get("tokenizer")
        for kind in kinds if isinstance(kinds, list) and self.measure == "bits_per_byte" else []:
            if kind in KINDS and not KINDS[kind].lossless:
                raise ValueError(f"tokenizer={kind} has no bits per byte to rank by; drop it")

    @property
    def varied(self) -> list[str]:
        """Names of settings with more than one value."""
        return [k for k, v in self.space.items() if isinstance(v, Range) or len(v) > 1]

    @property
    def measure(self) -> str:
        """What points are ranked by: across tokenizers only bits per byte can be compared."""
        return "bits_per_byte" if {"vocab", "tokenizer"} & set(self.varied) else "val_loss"

    def grid(self) -> Iterator[Values]:
        """Every combination. Raises ValueError if there is a range."""
        for name, choices in self.space.items():
            if isinstance(choices, Range):
                raise ValueError(f"{name}={choices} is a range; add --random 20 or --optuna 20")
        choices = [v for v in self.space.values() if isinstance(v, list)]
        return (dict(zip(self.space, v, strict=True)) for v in itertools.product(*choices))

    def draw(self, n: int, seed: int = 0) -> list[Values]:
        """At most n different points at random, the same for the same seed."""
        rng = random.Random(seed)
        points: dict[str, Values] = {}
        for _ in range(20 * n):  # of few combinations some come again
            point = {
                name: choices.draw(rng) if isinstance(choices, Range) else rng.choice(choices)
                for name, choices in self.space.items()
            }
            points.setdefault(self.name(point), point)
        return list(points.values())[:n]

    def name(self, values: Values, seed: int | None = None) -> str:
        """`lr=0.001,seed=2`: what differs between runs."""
        parts = {k: values[k] for k in self.varied}
        if len(self.seeds) > 1 and seed is not None:
            parts["seed"] = seed
        return ",".join(f"{k}={v}" for k, v in parts.items()).replace("/", "_")

    def settings(self, values: Values, seed: int | None) -> Settings:
        """The settings of a run; its directory is their `run`. ValueError if it cannot be."""
        run = str(self.path / (self.name(values, seed) or "run"))
        own = {"sample": 0, **values, "run": run}
        if seed is not None:
            own["seed"] = seed
        return settings_of(Namespace(config=self.config, **own, **self.budget(own)))

    def budget(self, values: Values) -> Values:
        """The steps that `tokens` are, and ten evaluations."""
        if not self.tokens:
            return {}
        own = {**values, "steps": 1}
        settings = settings_of(Namespace(config=self.config, **own))
        steps = max(1, self.tokens // settings.tokens_per_step)
        every = {} if "eval_every" in values else {"eval_every": max(1, steps // 10)}
        return {"steps": steps, **every}

    def command(self, values: Values) -> str:
        """The command that trains a point alone, with the config's seed."""
        config = [] if is_default(self.config) else ["--config", self.config]
        flags = {**values, **self.budget(values)}
        words = [word for k, v in flags.items() for word in (f"--{k}", told(v))]
        return shlex.join(["python", "train.py", *config, *words])


def told(value: Any) -> str:
    """A value as a flag has it: True -> "true"."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def with_seeds(sweep: Sweep) -> Sweep:
    """The same sweep with the seed taken out of its space, where it is given."""
    space = dict(sweep.space)
    seeds = space.pop("seed", [])
    if isinstance(seeds, Range):
        raise ValueError(f"seed={seeds} is a range; name each seed, say --seed 1 2 3")
    return replace(sweep, space=space, seeds=seeds)
