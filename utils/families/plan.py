"""The families as settings of one size, and how many steps a budget of operations pays for."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from model import MODELS
from utils.config import Settings
from utils.flags import settings_of

B, T = 16, 64
SHAPE = {"n_layer": 2, "n_head": 4, "d_model": 128, "block_size": T, "dropout": 0.0}
PLAIN = {"qk_norm": False, "zero_init": False, "emb_std": 0.02, "emb_conv": 0, "tie_weights": True}
PUBLISHED = {"norm": "layernorm", "pos": "learned", "bias": True}  # GPT-2's and BERT's
LLAMA = {"norm": "rmsnorm", "pos": "rope", "bias": False, "norm_at": "pre", "norm_eps": 1e-6}
MASKED = {"objective": "masked", "mask_rate": 0.4}
RATES = {
    "adamw": (1e-3, 2e-3, 4e-3, 8e-3, 16e-3),
    "muon": (0.0025, 0.005, 0.01, 0.02, 0.04),
}


@dataclass(frozen=True)
class Family:
    """A family: what it is called, and how its model differs. Widths d_ff make sizes equal."""

    name: str
    title: str
    values: Mapping[str, Any]


FAMILIES = (
    Family("gpt2", "GPT-2 style", {**PUBLISHED, "mlp": "gelu_tanh", "d_ff": 576}),
    Family("llama", "LLaMA style", {**LLAMA, "mlp": "swiglu", "d_ff": 408}),
    Family(
        "bert",
        "BERT",
        {**PUBLISHED, **MASKED, "mlp": "gelu", "norm_at": "post", "norm_eps": 1e-12},
    ),
    Family("modern", "BERT by LLaMA's settings", {**LLAMA, **MASKED, "mlp": "swiglu", "d_ff": 352}),
)


@dataclass(frozen=True)
class Plan:
    """A training: its family, optimizer and learning rate, its seed, what it may cost in FLOPs."""

    family: Family
    optimizer: str
    lr: float
    seed: int
    budget: float
    data: str
    tokenizer: str
    root: Path

    @property
    def name(self) -> str:
        """Of its run."""
        return f"{self.family.name}-{self.optimizer},lr={self.lr:g},seed={self.seed}"

    @property
    def path(self) -> Path:
        """Where its run lies."""
        return self.root / f"{self.budget:.2g}" / self.name

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(parameters, operations to train on a token); a BERT's head reads masked tokens alone."""
        import tok

        s = settings(self, 1)
        config, build = MODELS[s.objective.kind]
        with torch.device("meta"):
            V = tok.load(self.tokenizer).vocab_size
            model = build(config(**{**vars(s.model), "vocab_size": V}))
        masked = s.objective.kind == "bert"
        flops = model.flops_per_token(s.objective.mask_rate) if masked else model.flops_per_token()
        return model.n_params(), flops

    @property
    def steps(self) -> int:
        """As many as the budget pays for."""
        return max(1, round(self.budget / self.shape[1] / (B * T)))


def settings(plan: Plan, steps: int) -> Settings:
    """A training's settings: the same optimizer and schedule for all, to their end."""
    values: dict[str, Any] = {**SHAPE, **PLAIN, **plan.family.values}
    values |= {"optimizer": plan.optimizer, "lr": plan.lr, "min_lr": 0, "momentum": 0.95}
    values |= {"schedule": "linear", "warmup": steps // 10, "grad_clip": 1.0, "beta2": 0.99}
    values |= {"weight_decay": 0.1, "batch_size": B, "accum": 1, "steps": steps}
    values |= {"eval_every": steps, "log_every": 50, "sample": 0, "patience": 0}
    values |= {"data": plan.data, "doc_sep": "\n\n", "tokenizer": plan.tokenizer}
    values |= {"dtype": "float32", "compile": False, "seed": plan.seed, "run": str(plan.path)}
    return settings_of(Namespace(config=None, **values))
