"""Products with few rows: a model that generates reads all its weights for each token."""

from collections import defaultdict
from time import perf_counter
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

    On some processors torch's library makes one thread's slow work of a matrix times a vector: on
    a Zen 4 all matrices of 6 blocks of 384 took 3.8 ms; in pieces, as one batched product, 1.0 ms.
    Others are slower in pieces, so `few_rows` measures.
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


def cut(layer: nn.Linear) -> FewRowsLinear:
    """The same layer in pieces, one a thread."""
    new = with_parameters(FewRowsLinear, layer)
    new.pieces = max(2, torch.get_num_threads())
    return new


@torch.inference_mode()
def faster_cut(layers: list[nn.Linear], rows: int) -> bool:
    """Whether layers of one shape are faster in pieces: by a tenth, in the best of 3 rounds.

    A round reads every weight once, as a token does; a single one would stay in the cache.
    """
    x = torch.zeros(rows, layers[0].in_features, dtype=layers[0].weight.dtype)
    groups = layers, [cut(layer) for layer in layers]
    seconds = []
    for _ in range(3 + 1):  # the first does not count
        for group in groups:
            began = perf_counter()
            for layer in group:
                layer(x)
            seconds.append(perf_counter() - began)
    whole, pieces = min(seconds[2::2]), min(seconds[3::2])
    return pieces < 0.9 * whole


def few_rows(model: Model, rows: int = 1) -> Model:
    """Replace the large linear layers of a model on the CPU, in place; gives the model.

    Only those of a shape that this machine multiplies faster so, by a measurement with so many
    rows. Parameters and their names stay, results to rounding. `undo` puts nn.Linear back.
    """
    shapes = defaultdict(list)
    for parent in model.modules():
        for name, layer in parent.named_children():
            if is_plain(layer) and layer.weight.numel() >= NUMEL and layer.weight.is_cpu:
                shapes[layer.weight.shape].append((parent, name, layer))
    for found in shapes.values():
        if faster_cut([layer for _, _, layer in found], rows):
            for parent, name, layer in found:
                setattr(parent, name, cut(layer))
    return model


def undo(model: Model) -> Model:
    """Replace each FewRowsLinear by nn.Linear again; gives the model."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, FewRowsLinear):
                setattr(parent, name, with_parameters(nn.Linear, layer))
    return model
