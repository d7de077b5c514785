"""What is changed: each ablation is a question, its variants are settings over the baseline's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tok.cli import unknown_name

BASELINE = "baseline"


@dataclass(frozen=True)
class Variant:
    """A change of the baseline. Its learning rate is `lr_factor` times the baseline's."""

    name: str
    settings: Mapping[str, Any]
    lr_factor: float = 1.0
    ablation: str = ""


@dataclass(frozen=True)
class Ablation:
    """A question, and the variants that answer it; what the baseline has stands in the config."""

    name: str
    question: str
    variants: Sequence[Variant] = field(default_factory=list)


def values_of(setting: str, names: Mapping[str, Any]) -> list[Variant]:
    """Variants that differ in one setting: {"learned": "learned"} -> name and value."""
    return [Variant(name, {setting: value}) for name, value in names.items()]


ABLATIONS = [
    Ablation(
        "positions",
        "How does the model know the order of tokens?",
        values_of(
            "pos",
            {
                "rope": "rope",
                "learned positions": "learned",
                "sinusoidal positions": "sinusoidal",
                "no positions": "none",
            },
        ),
    ),
    Ablation(
        "norm",
        "Does LayerNorm's mean matter?",
        values_of("norm", {"RMSNorm": "rmsnorm", "LayerNorm": "layernorm"}),
    ),
    Ablation(
        "norm_at",
        "Norm before each sublayer, or after its sum?",
        [
            Variant("pre-norm", {"norm_at": "pre"}),
            Variant("pre-norm, short warm-up", {"norm_at": "pre", "warmup": 10}),
            Variant("post-norm", {"norm_at": "post"}),
            Variant("post-norm, short warm-up", {"norm_at": "post", "warmup": 10}),
        ],
    ),
    Ablation(
        "mlp",
        "Which activation, at the same number of weights?",
        values_of("mlp", {"GELU": "gelu", "ReLU²": "relu2", "SwiGLU": "swiglu"}),
    ),
    Ablation(
        "head",
        "Share the embedding's weights with the head?",
        values_of("tie_weights", {"tied head": True, "free head": False}),
    ),
    Ablation(
        "qk_norm",
        "Normalise queries and keys?",
        values_of("qk_norm", {"no QK-norm": False, "QK-norm": True}),
    ),
    Ablation(
        "dropout",
        "Does dropout help?",
        values_of("dropout", {"dropout 0": 0.0, "dropout 0.1": 0.1, "dropout 0.2": 0.2}),
    ),
    Ablation(
        "optimizer",
        "AdamW, or Muon for the blocks' matrices?",
        [Variant("AdamW", {"optimizer": "adamw"}), Variant("Muon", {"optimizer": "muon"}, 2.0)],
    ),
    Ablation(
        "vocabulary",
        "How many tokens should the vocabulary have?",
        [
            Variant("characters", {"tokenizer": "char"}),
            *(Variant(f"vocabulary {n:,}", {"vocab": n}) for n in (300, 600, 1200, 2400)),
        ],
    ),
    Ablation(
        "window",
        "How far must attention see?",
        values_of("window", {"all of the context": 0, "window 32": 32, "window 16": 16}),
    ),
    Ablation(
        "heads",
        "Do heads need keys and values of their own?",
        values_of("n_kv_head", {"4 kv heads": 0, "2 kv heads": 2, "1 kv head": 1}),
    ),
]


def differs(variant: Variant, baseline: Mapping[str, Any]) -> bool:
    """Whether a variant changes anything of the baseline's settings."""
    return any(baseline[name] != value for name, value in variant.settings.items())


def chosen(only: Iterable[str], baseline: Mapping[str, Any]) -> list[Variant]:
    """The baseline, then the variants of the ablations `only` names; none means all.

    What the baseline has already is no variant. Raises ValueError for an unknown name.
    """
    names = [a.name for a in ABLATIONS]
    for name in only:
        if name not in names:
            raise ValueError(f"{unknown_name('ablation', name, names)} there are {' '.join(names)}")
    return [Variant(BASELINE, {})] + [
        Variant(v.name, v.settings, v.lr_factor, a.name)
        for a in ABLATIONS
        if not only or a.name in only
        for v in a.variants
        if differs(v, baseline)
    ]
