"""Products with few rows: a model that generates reads all its weights for each token."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from model.gpt import is_plain

ROWS = 32  # with more, nn.Linear is as fast
NUMEL = 2**17  # a smaller matrix stays in the processor's cache, where nn.Linear is as fast
Linear = TypeVar("Linear", bound=nn.Linear)
Model = TypeVar("Model", bound=nn.Module)


class FewRowsLinear(nn.Linear):
    """nn.Linear that reads its weight at the memory's speed where the input has few rows.

    Of a matrix times a vector torch's CPU library makes one thread's work, and slow work: all
    matrices of 6 blocks of 384 took 3.8 ms; cut in pieces, as one batched product, 1.0 ms.
    """

    pieces = 2

    def forward(self, x: Tensor) -> Tensor:
        """x W^T + b, (...,in_features) -> (...,out_features)."""
        rows = x.numel() // self.in_features
        if rows > ROWS or not rows or self.weight.dtype != torch.float32:
            return super().forward(x)
        y = self.product(x.reshape(rows, self.in_features))
        y = y if self.bias is None else y + self.bias
        return y.reshape(*x.shape[:-1], self.out_features)

    def product(self, x: Tensor) -> Tensor:
        """x W^T of x (rows,in_features), by pieces of the weight in one batched product."""
        n, pieces = self.out_features // self.pieces, self.pieces
        whole, rest = self.weight.split((pieces * n, self.out_features - pieces * n))
        columns = x.T.expand(pieces, *x.T.shape)
        y = torch.bmm(whole.reshape(pieces, n, self.in_features), columns)
        y = y.view(pieces * n, len(x))
        return (torch.cat((y, rest @ x.T)) if len(rest) else y).T


def with_parameters(kind: type[Linear], layer: nn.Linear) -> Linear:
    """Make a layer of another kind that shares a linear layer's parameters."""
    new = kind(layer.in_features, layer.out_features, bias=False, device="meta")
    new.weight, new.bias = layer.weight, layer.bias
    return new.train(layer.training)


def few_rows(model: Model) -> Model:
    """Replace the large linear layers of a model on the CPU, in place; gives the model.

    Parameters and their names stay, results to rounding. `undo` puts nn.Linear back.
    """
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if is_plain(layer) and layer.weight.numel() >= NUMEL and layer.weight.is_cpu:
                new = with_parameters(FewRowsLinear, layer)
                new.pieces = max(2, torch.get_num_threads())
                setattr(parent, name, new)
    return model


def undo(model: Model) -> Model:
    """Replace each FewRowsLinear by nn.Linear again; gives the model."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, FewRowsLinear):
                setattr(parent, name, with_parameters(nn.Linear, layer))
    return model
