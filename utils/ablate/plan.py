"""Which runs there are: a variant on a text with a seed, for as many steps as tokens or time allow.

A run lies in NAME/TEXT/VARIANT-seedN, and one whose steps follow from equal time in
NAME/TEXT/VARIANT-time-seedN. It knows no results.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.download import SOURCES, fetch
from utils.ablate.variants import Variant
from utils.config import Settings, flat, settings_from

TOKENS, TIME = "tokens", "time"
NEAR = 0.05  # a step whose time differs by less counts as equal: the runs by tokens stand for both


@dataclass(frozen=True)
class Run:
    """One training: which variant, text and seed, what is equal to the baseline, its settings."""

    variant: Variant
    text: str
    seed: int
    equal: str  # TOKENS or TIME
    settings: Settings

    @property
    def name(self) -> str:
        """For people: tiny, Muon, equal time, seed 2."""
        return f"{self.text}, {self.variant.name}, equal {self.equal}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """The baseline, whose `run` is where all lies; texts {name: path}; variants; seeds; paces."""

    baseline: Settings
    texts: Mapping[str, str]
    variants: Sequence[Variant]
    seeds: Sequence[int]
    ratios: Mapping[str, Mapping[str, float]]  # of a text, a variant's step to the baseline's

    @property
    def path(self) -> Path:
        """The directory of all its runs."""
        return Path(self.baseline.train.run)

    def runs(self, equal: Sequence[str] = (TOKENS, TIME)) -> Iterator[Run]:
        """All of them, what is asked first before what depends on time, a text after the other.

        Seed by seed, so that what has been trained when it ends early can be compared.
        """
        for kind in (k for k in (TOKENS, TIME) if k in equal):
            for text in self.texts:
                for seed in self.seeds:
                    for variant in self.variants:
                        if kind == TOKENS or self.apart(text, variant):
                            yield self.run(variant, text, seed, kind)

    def apart(self, text: str, variant: Variant) -> bool:
        """Whether equal time is another number of steps than equal tokens."""
        return abs(self.ratios[text][variant.name] - 1) > NEAR

    def steps(self, text: str, variant: Variant, equal: str) -> int:
        """Steps of a run: the baseline's, or as many as take its time. 300 at 1.5 x -> 200."""
        n = self.baseline.train.steps
        return n if equal == TOKENS else max(1, round(n / self.ratios[text][variant.name]))

    def run(self, variant: Variant, text: str, seed: int, equal: str, lr: float = 1.0) -> Run:
        """A run; `lr` times the variant's learning rate. ValueError if it cannot be built."""
        tags = [slug(variant.name), *["time"] * (equal == TIME), *[f"lr{lr:g}"] * (lr != 1)]
        path = self.path / text / "-".join([*tags, f"seed{seed}"])
        settings = settings_of(variant, self.baseline, lr)
        steps = self.steps(text, variant, equal)
        ends = replace(settings.train, seed=seed, run=str(path), steps=steps, eval_every=steps)
        data = replace(settings.data, data=self.texts[text])
        return Run(variant, text, seed, equal, replace(settings, train=ends, data=data))


def slug(name: str) -> str:
    """A name as part of a path: "vocabulary 1,200" -> "vocabulary-1200"."""
    return name.replace(" ", "-").replace(",", "").replace("²", "2").replace("/", "-")


def settings_of(variant: Variant, baseline: Settings, lr: float = 1.0) -> Settings:
    """The baseline's settings with the variant's change, and `lr` times its learning rate.

    Raises ValueError that names the variant if they do not go together.
    """
    rate = float(f"{baseline.optim.lr * variant.lr_factor * lr:.4g}")
    changed: dict[str, Any] = {**flat(baseline), **variant.settings, "lr": rate}
    try:
        return settings_from(changed)
    except ValueError as e:
        raise ValueError(f"{variant.name}: {e}") from None


def texts_of(words: Sequence[str]) -> dict[str, str]:
    """{name: path} of files, and of texts that data.prepare knows by name: ["data/tiny.txt"] ->
    {"tiny": "data/tiny.txt"}. Raises ValueError for one that is not there, and for two of a name.
    """
    texts: dict[str, str] = {}
    for word in words:
        path = found(word)
        if path.stem in texts:
            raise ValueError(f"two texts are called {path.stem}; rename a file")
        texts[path.stem] = str(path)
    return texts


def found(word: str) -> Path:
    """The file of a text, downloaded if it is known by name. Raises ValueError without it."""
    if word not in SOURCES:
        if not Path(word).is_file():
            raise ValueError(f"no text {word}; name a file, or one of {', '.join(SOURCES)}")
        return Path(word)
    try:
        return fetch(word)
    except ValueError as e:
        cure = f"get it elsewhere, and name the file: --texts {word}.txt"
        raise ValueError(f"{str(e).split(';')[0]}; {cure}") from None
