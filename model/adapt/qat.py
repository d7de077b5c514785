"""Quantization-aware training: products by rounded weights, gradients for those behind them.

y = x Q(W)^T + b, and W learns by dL/dQ(W): the straight-through estimator (Bengio et al. 2013), as
if Q were the identity. Q rounds to the nearest, as `model.adapt.quant.quantize` does, so that this
makes of the trained weights the very model that was trained.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from model.adapt.few_rows import with_parameters
from model.adapt.quant import bits_of, places, replace_layer
from model.adapt.rounding import check_group, rounded
from model.gpt import TinyGPT


def straight_through(w: Tensor, bits: int, group: int) -> Tensor:
    """Q(w) of weights (N,K), whose gradient goes to w unchanged."""
    return rounded(w.detach(), bits, group) + (w - w.detach())  # + 0, exactly


class RoundedLinear(nn.Linear):
    """nn.Linear that multiplies by its rounded weight."""

    bits, group = 8, 32

    def forward(self, x: Tensor) -> Tensor:
        """x Q(W)^T + b, (...,in) -> (...,out)."""
        return F.linear(x, straight_through(self.weight, self.bits, self.group), self.bias)


class RoundedEmbedding(nn.Embedding):
    """nn.Embedding that looks up rounded vectors."""

    bits, group = 8, 32

    def forward(self, idx: Tensor) -> Tensor:
        """Vectors of ids, (...) -> (...,C); only those that are asked for are rounded."""
        w = F.embedding(idx.flatten(), self.weight)
        return straight_through(w, self.bits, self.group).view(*idx.shape, -1)


def round_layers(model: TinyGPT, bits: int, group: int = 32, embedding_bits: int = 8) -> TinyGPT:
    """Make layers compute by rounded weights, in place; gives the model.

    Those that `quantize` rounds, with the same bits, 0 for none; parameters and their names
    stay. Raises ValueError for a layer that has no whole groups; the model stays then.
    """
    if not bits:
        return model
    own = {name: bits_of(name, bits, embedding_bits) for name in places(model)}
    layers = {name: m for name, m in places(model).items() if own[name] != 32}
    for name, layer in layers.items():
        if own[name] == 4:
            check_row(name, layer.weight.size(1), group)
    for name, layer in layers.items():
        replace_layer(model, name, with_rounding(layer, own[name], group))
    return model


def check_row(name: str, K: int, group: int) -> None:
    """`check_group`, whose errors name the layer, and train.py's settings."""
    try:
        check_group(K, group)
    except ValueError as e:
        said = str(e).replace("--int8", "--quantize int8").replace("--group", "--quantize_group")
        raise ValueError(f"{name}: {said}") from None


def with_rounding(layer: nn.Linear | nn.Embedding, bits: int, group: int) -> nn.Module:
    """The layer, its parameters shared, with a rounded weight."""
    new: RoundedLinear | RoundedEmbedding
    if isinstance(layer, nn.Linear):
        new = with_parameters(RoundedLinear, layer)
    else:
        new = RoundedEmbedding(layer.num_embeddings, layer.embedding_dim, device="meta")
        new.weight = layer.weight
    new.bits, new.group = bits, group
    return new
