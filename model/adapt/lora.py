"""LoRA: each linear layer of the blocks learns a product of two thin matrices beside its weight.

y = x W^T + b + s (x A^T) B^T, A (r,in), B (out,r), s = alpha / r (Hu et al. 2021, eq. 3). W and all
else stay as they are; B starts at 0, so the model does, too. `undo_lora` takes the adapters away,
`merge_lora` adds s B A to W.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.adapt.few_rows import Cuttable, in_pieces, with_parameters
from model.adapt.lora_config import LoRAConfig
from model.gpt import TinyGPT


class LoRALinear(Cuttable):
    """nn.Linear with an adapter; weight and bias are the replaced layer's own."""

    on = True  # whether the adapter counts
    scale = 1.0
    dropout = 0.0
    lora_A: nn.Parameter
    lora_B: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:  # exercise: lora
        """x (...,in) -> (...,out)."""
        weight = self.weight if self.weight.dtype == x.dtype or autocast(x) else self.weight.to(x)
        y = in_pieces(x, weight, self.bias, self.pieces)
        if not self.on:
            return y
        x = F.dropout(x, self.dropout, self.training) if self.dropout else x
        return y + F.linear(self.scale * F.linear(x, self.lora_A), self.lora_B)  # s where it's thin

    def product(self) -> Tensor:
        """s B A (out,in), what the adapter adds to the weight."""
        return self.scale * (self.lora_B @ self.lora_A)


def autocast(x: Tensor) -> bool:
    """Whether products with x are cast by autocast."""
    return torch.is_autocast_enabled(x.device.type)


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """The layers with adapters by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LoRALinear)}


def add_lora(
    model: TinyGPT, config: LoRAConfig, generator: torch.Generator | None = None
) -> TinyGPT:
    """Give linear layers of the blocks adapters, in place, and freeze all else; gives the model.

    A is drawn as nn.Linear's weight is, by `generator` if there is one; B is 0. Raises ValueError
    for a rank below 1 or above a matrix's smaller side, a target that no block has, or adapters
    that are there already.
    """
    if config.lora < 1:
        raise ValueError(f"lora={config.lora} must be a rank of 1 or more")
    if adapters(model):
        raise ValueError("the model has adapters; merge_lora or undo_lora comes first")
    found = [
        (parent, name, layer)
        for parent in model.blocks.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Linear) and name in config.targets
    ]
    have = {name for _, name, _ in found}
    if config.lora_targets != "all" and (missing := set(config.targets) - have):
        raise ValueError(f"lora_targets has {min(missing)!r}, but the blocks have no such layer")
    least = min(min(layer.weight.shape) for _, _, layer in found)
    if config.lora > least:
        raise ValueError(f"lora={config.lora} is more than {least}, the least side of a matrix")
    model.requires_grad_(False)
    for parent, name, layer in found:
        setattr(parent, name, with_adapter(layer, config, generator))
    return model


def with_adapter(
    layer: nn.Linear, config: LoRAConfig, generator: torch.Generator | None
) -> LoRALinear:
    """The layer with a new adapter."""
    new = with_parameters(LoRALinear, layer)
    r, device = config.lora, layer.weight.device
    bound = 1 / math.sqrt(layer.in_features)  # kaiming_uniform with a = sqrt(5)
    A = torch.empty(r, layer.in_features, device="cpu")  # the same from a seed on any device
    A.uniform_(-bound, bound, generator=generator)
    new.lora_A = nn.Parameter(A.to(device))
    new.lora_B = nn.Parameter(torch.zeros(layer.out_features, r, device=device))
    new.scale, new.dropout = config.scale, config.lora_dropout
    return new


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' matrices: "blocks.0.attn.qkv.lora_A" (r,in), "blocks.0.attn.qkv.lora_B"."""
    return {n: p.detach() for n, p in model.named_parameters() if n.endswith(("lora_A", "lora_B"))}


def load_lora(model: nn.Module, state: Mapping[str, Tensor], *, any_rank: bool = False) -> None:
    """Copy matrices into a model's adapters, which may get another rank by that.

    Raises ValueError unless there is a pair for each adapter, of its shape but for the rank.
    """
    own = lora_state(model)
    if odd := sorted(own.keys() ^ state.keys()):
        raise ValueError(f"adapters and model do not belong together: {odd[0]} is in one only")
    for name, layer in adapters(model).items():
        A, B = (state[f"{name}.{x}"] for x in ("lora_A", "lora_B"))
        r = len(layer.lora_A)
        if not any_rank and len(A) != r:  # new parameters: an optimizer would keep the old ones
            raise ValueError(f"{name} has an adapter of rank {len(A)}, not {r}; take that rank")
        n, m = layer.in_features, layer.out_features
        if A.ndim != 2 or B.ndim != 2 or A.size(1) != n or B.shape != (m, len(A)):
            shapes = f"{tuple(A.shape)} and {tuple(B.shape)}"
            raise ValueError(f"{name} has adapters {shapes}; they must be (r,{n}) and ({m},r)")
    for name, layer in adapters(model).items():
        for x in ("lora_A", "lora_B"):
            old, new = getattr(layer, x), state[f"{name}.{x}"]
            if old.shape == new.shape:
                old.data.copy_(new)
            else:
                setattr(layer, x, nn.Parameter(new.clone().to(old)))


@contextmanager
def without_lora(model: nn.Module) -> Iterator[None]:
    """Within it the model is its base: adapters do not count."""
    before = {layer: layer.on for layer in adapters(model).values()}
    for layer in before:
        layer.on = False
    try:
        yield
    finally:
        for layer, on in before.items():
            layer.on = on


def frozen_to(model: TinyGPT, dtype: torch.dtype) -> TinyGPT:
    """Hold the frozen weights of the layers with adapters in another dtype, say bfloat16.

    For training under autocast, which rounds them anyway: without it each product makes a float32
    copy. What is rounded stays so: `undo_lora` and `merge_lora` give float32 of what is left.
    """
    for layer in adapters(model).values():
        layer.weight = nn.Parameter(layer.weight.detach().to(dtype), requires_grad=False)
    return model


def undo_lora(model: TinyGPT) -> TinyGPT:
    """Take all adapters away, in place, and let all weights be trained again; gives the model."""
    for name, layer in adapters(model).items():
        if layer.weight.dtype != layer.lora_A.dtype:  # by frozen_to
            layer.weight = nn.Parameter(layer.weight.detach().to(layer.lora_A.dtype))
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, with_parameters(nn.Linear, layer))
    return model.requires_grad_(True)


@torch.no_grad()
def merge_lora(model: TinyGPT) -> TinyGPT:  # exercise: lora-merge
    """Add s B A to each weight and take the adapters away, in place; gives the model.

    Logits stay the same to rounding. The weights are new: those of the base, which others may
    share, stay as they are.
    """
    for layer in adapters(model).values():
        merged = layer.weight.float() + layer.product().float()
        layer.weight = nn.Parameter(merged)
    return undo_lora(model)
