"""Products with few rows: a model that generates reads all its weights for each token."""

import math
from collections import defaultdict
from collections.abc import Sequence
from time import perf_counter
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.gpt import is_plain

ROWS = 32  # with more, nn.Linear is as fast
NUMEL = 2**17  # a smaller matrix stays in the processor's cache, where nn.Linear is as fast
Linear = TypeVar("Linear", bound=nn.Linear)
Model = TypeVar("Model", bound=nn.Module)


def product(x: Tensor, weight: Tensor, pieces: int) -> Tensor:
    """x W^T of x (rows,in_features), by pieces of the weight in one batched product."""
    n = len(weight) // pieces
    whole, rest = weight.split((pieces * n, len(weight) - pieces * n))
    y = torch.bmm(whole.reshape(pieces, n, weight.size(1)), x.T.expand(pieces, *x.T.shape))
    y = y.view(pieces * n, len(x))
    return (torch.cat((y, rest @ x.T)) if len(rest) else y).T


def in_pieces(x: Tensor, weight: Tensor, bias: Tensor | None, pieces: int) -> Tensor:
    """x W^T + b, (...,in_features) -> (...,out_features), in pieces if any and rows are few."""
    rows = x.numel() // weight.size(1)
    if not pieces or rows > ROWS or not rows or weight.dtype != torch.float32:
        return F.linear(x, weight, bias)
    y = product(x.reshape(rows, weight.size(1)), weight, pieces)
    y = y if bias is None else y + bias
    return y.reshape(*x.shape[:-1], len(weight))


class FewRowsLinear(nn.Linear):
    """nn.Linear that reads its weight at the memory's speed where the input has few rows.

    On some processors torch's library makes one thread's slow work of a matrix times a vector: on
    a Zen 4 all matrices of 6 blocks of 384 took 3.8 ms; in pieces, as one batched product, 1.0 ms.
    Others are slower in pieces, so `few_rows` measures.
    """

    pieces = 2

    def forward(self, x: Tensor) -> Tensor:
        """x W^T + b, (...,in_features) -> (...,out_features)."""
        return in_pieces(x, self.weight, self.bias, self.pieces)


class Cuttable(nn.Linear):
    """A linear layer that does more than its product, which it computes in pieces if told so."""

    pieces = 0


def can_cut(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether the product of a layer may be computed in pieces."""
    return is_plain(layer) or isinstance(layer, Cuttable)


def with_parameters(kind: type[Linear], layer: nn.Linear) -> Linear:
    """Make a layer of another kind that shares a linear layer's parameters."""
    new = kind(layer.in_features, layer.out_features, bias=False, device="meta")
    new.weight, new.bias = layer.weight, layer.bias
    return new.train(layer.training)


def threads() -> int:
    """In how many pieces a weight is read: one a thread."""
    return max(2, torch.get_num_threads())


def cut(layer: nn.Linear) -> FewRowsLinear:
    """The product of the same layer in pieces."""
    new = with_parameters(FewRowsLinear, layer)
    new.pieces = threads()
    return new


@torch.inference_mode()
def seconds(groups: Sequence[Sequence[nn.Linear]], rows: int) -> list[float]:
    """How long each group of layers of one shape takes for so many rows, in the best of 3 rounds.

    A round reads every weight once, as a token does; a single one would stay in the cache.
    """
    layer = groups[0][0]
    x = torch.zeros(rows, layer.in_features, dtype=layer.weight.dtype)
    best = [math.inf] * len(groups)
    for i in range(1 + 3):  # the first does not count
        for j, group in enumerate(groups):
            began = perf_counter()
            for layer in group:
                layer(x)
            took = perf_counter() - began
            best[j] = min(best[j], took) if i else best[j]
    return best


def faster_cut(layers: list[nn.Linear], rows: int) -> bool:
    """Whether layers of one shape are faster in pieces, by a tenth."""
    plain = [with_parameters(nn.Linear, layer) for layer in layers]
    whole, pieces = seconds((plain, [cut(layer) for layer in layers]), rows)
    return pieces < 0.9 * whole


def few_rows(model: Model, rows: int = 1) -> Model:
    """Replace the large linear layers of a model on the CPU, in place; gives the model.

    A layer with an adapter stays, and is told to compute the product beside it so.
    Only those of a shape that this machine multiplies faster so, by a measurement with so many
    rows. Parameters and their names stay, results to rounding. `undo` puts nn.Linear back.
    """
    shapes = defaultdict(list)
    for parent in model.modules():
        for name, layer in parent.named_children():
            if can_cut(layer) and layer.weight.numel() >= NUMEL and layer.weight.is_cpu:
                shapes[layer.weight.shape].append((parent, name, layer))
    for found in shapes.values():
        if faster_cut([layer for _, _, layer in found], rows):
            for parent, name, layer in found:
                if isinstance(layer, Cuttable):
                    layer.pieces = threads()
                else:
                    setattr(parent, name, cut(layer))
    return model


def undo(model: Model) -> Model:
    """Replace each FewRowsLinear by nn.Linear again; gives the model."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, FewRowsLinear):
                setattr(parent, name, with_parameters(nn.Linear, layer))
            if isinstance(layer, Cuttable):
                layer.pieces = 0
    return model
