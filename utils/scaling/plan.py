"""What is trained: sizes, compute budgets, and which size goes with how many tokens."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from utils.config import Settings
from utils.flags import settings_of

Size = tuple[int, int]  # layers, width
SIZES: tuple[Size, ...] = ((1, 16), (2, 16), (2, 24), (2, 32), (2, 48), (3, 56), (3, 80))
BUDGETS = (3e10, 1e11, 3e11)  # floating-point operations of a training
HELD_OUT = 1e12
PER_PARAMETER = (0.7, 300.0)  # tokens: outside of it a size is far from a budget's best
B, T, HEAD = 8, 64, 8  # a step is 512 tokens; heads of 8 dimensions


@cache
def count(size: Size, V: int, T: int = T) -> tuple[int, int, int]:
    """(all parameters, those of the blocks' matrices, FLOPs to train on a token) of a size."""
    from model import GPTConfig, TinyGPT
    from utils.training.optim import muon_groups

    config = settings(Plan(1.0, size, 1, V), "", Path()).model
    model = TinyGPT(GPTConfig(**{**vars(config), "vocab_size": V}))
    matrices = sum(p.numel() for group in muon_groups(model) for p in group["params"])
    return model.n_params(), matrices, model.flops_per_token()


@dataclass(frozen=True)
class Plan:
    """A training that is to be: what it may cost, its size, its seed, its vocabulary."""

    budget: float
    size: Size
    seed: int
    V: int

    @property
    def N(self) -> int:
        """All parameters, as Hoffmann et al. count them."""
        return count(self.size, self.V)[0]

    @property
    def matrices(self) -> int:
        """Without embeddings and head, as Kaplan et al. count them."""
        return count(self.size, self.V)[1]

    @property
    def steps(self) -> int:
        """As many as the budget pays for."""
        return max(1, round(self.budget / count(self.size, self.V)[2] / (B * T)))

    @property
    def D(self) -> int:
        """Tokens that it learns from, those that come again included."""
        return self.steps * B * T

    @property
    def name(self) -> str:
        """Of its run."""
        return f"C={self.budget:.0e},L={self.size[0]},d={self.size[1]},seed={self.seed}"


def plans(budgets: Sequence[float], sizes: Sequence[Size], V: int) -> list[Plan]:
    """All sizes with all budgets, but for those whose tokens are far from their parameters."""
    every = [Plan(budget, size, 1, V) for budget in budgets for size in sizes]
    low, high = PER_PARAMETER
    return [plan for plan in every if low <= plan.D / plan.N <= high]


def with_seeds(plans: Sequence[Plan], seeds: int) -> Iterator[Plan]:
    """The same, and those of the lowest budget, which cost little, again with more seeds."""
    least = min(plan.budget for plan in plans)
    for plan in plans:
        for seed in range(1, 1 + (seeds if plan.budget == least else 1)):
            yield replace(plan, seed=seed)


def settings(plan: Plan, data: str, root: Path) -> Settings:
    """A training's settings: model and optimizer of configs/tiny.yaml, by characters.

    The schedule ends with the tokens: a loss in the middle of a longer one says little of D.
    """
    L, C = plan.size
    steps = plan.steps if data else 1  # of no text: only the shape counts
    values: dict[str, Any] = {"n_layer": L, "d_model": C, "n_head": C // HEAD, "block_size": T}
    values |= {"pos": "rope", "mlp": "relu2", "qk_norm": True, "zero_init": True, "bias": False}
    values |= {"emb_std": 0.1, "emb_conv": 2, "tie_weights": False, "dropout": 0.0}
    values |= {"optimizer": "muon", "lr": 0.015, "schedule": "linear", "min_lr": 0}
    values |= {"momentum": 0.95, "warmup": steps // 20, "grad_clip": 1.0, "weight_decay": 0.1}
    values |= {"batch_size": B, "steps": steps, "eval_every": steps, "log_every": 50}
    values |= {"tokenizer": "char", "doc_sep": "", "dtype": "float32", "sample": 0}
    values |= {"seed": plan.seed, "patience": 0, "run": str(root / plan.name)}
    return settings_of(Namespace(config=None, **values, **({"data": data} if data else {})))
