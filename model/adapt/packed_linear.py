"""Weights in oneDNN's own layout: a product of up to 64 rows in half the time, for a second copy.

A matrix product lays its weight out anew at each call, which with few rows is most of the work.
Here that is done once. For a server, which has a batch of rows at every step.
"""

from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.adapt.few_rows import NUMEL, FewRowsLinear, Model, seconds, with_parameters
from model.gpt import is_plain


def can_pack() -> bool:
    """Whether this torch has the operators, which its own compiler uses."""
    ops = torch.ops.mkldnn
    there = all(hasattr(ops, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    return torch.backends.mkldnn.is_available() and there


class PackedLinear(nn.Linear):
    """nn.Linear with a second copy of its weight, laid out for so many rows."""

    packed: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """x W^T + b, (...,in_features) -> (...,out_features); gradients need the plain weight."""
        if torch.is_grad_enabled() or x.dtype != torch.float32:
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


def pack(layer: nn.Linear, rows: int) -> PackedLinear:
    """The same layer with its weight laid out."""
    new = with_parameters(PackedLinear, layer)
    new.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
    return new


@torch.inference_mode()
def packed(model: Model, rows: int) -> Model:
    """Replace the large linear layers of a model on the CPU, in place; gives the model.

    Only those of a shape that this machine multiplies faster so, by a tenth with so many rows.
    Parameters and their names stay, results to rounding. `unpacked` puts nn.Linear back.
    """
    shapes = defaultdict(list)
    for parent in model.modules():
        for name, layer in parent.named_children():
            if (
                (is_plain(layer) or isinstance(layer, FewRowsLinear))
                and layer.weight.numel() >= NUMEL
                and layer.weight.is_cpu
                and layer.weight.dtype == torch.float32
            ):
                shapes[layer.weight.shape].append((parent, name, layer))
    for found in shapes.values() if can_pack() else ():
        layers = [layer for _, _, layer in found]
        new = [pack(layer, rows) for layer in layers]
        before, after = seconds((layers, new), rows)
        if after < 0.9 * before:
            for (parent, name, _), layer in zip(found, new, strict=True):
                setattr(parent, name, layer)
    return model


def unpacked(model: Model) -> Model:
    """Replace each PackedLinear by nn.Linear again; gives the model."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, PackedLinear):
                setattr(parent, name, with_parameters(nn.Linear, layer))
    return model
