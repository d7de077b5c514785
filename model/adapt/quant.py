"""Quantized layers: a finished model's weights as 8- or 4-bit integers, and back.

A layer that was given our library in C++ (`model.native`) multiplies by that. Else a product with
few rows is torch's kernel's, which rounds activations to bfloat16; with more rows, or without a
kernel, weights are made float32 again for it. `quantize` replaces layers, `dequantize` puts
nn.Linear back, with what the integers stand for.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.adapt.rounding import Codes, check_codes, codes_of, unpacked, values
from model.gpt import TinyGPT, is_plain

ROWS = 32  # with more, a product of float32 is as fast on AVX2, though weights are made anew
PARTS = "q", "scale", "zero"
LAID_OUT = "laid_out", "kernel_scale"
aten = torch.ops.aten


def kernel_for(codes: Codes) -> str:
    """The torch operator that multiplies by these integers on a CPU, or "" if there is none."""
    N, K = codes.shape
    if codes.bits == 8:  # another K is read past its end: wrong numbers, or a crash
        name, fits = "_weight_int8pack_mm", K % 16 == 0
    else:
        name, fits = "_weight_int4pack_mm_for_cpu", N % 16 == 0
    return name if fits and codes.q.is_cpu and hasattr(aten, name) else ""


class Quantized(nn.Module):
    """A matrix in integers, as buffers that a state dict holds: q, scale, and zero of 4 bits."""

    q: Tensor
    scale: Tensor
    zero: Tensor | None

    def hold(self, codes: Codes) -> None:
        """Become these codes."""
        for name in PARTS:
            self.register_buffer(name, getattr(codes, name))

    @property
    def codes(self) -> Codes:
        """The integers and what they stand for."""
        return Codes(self.q, self.scale, self.zero)

    @property
    def weight(self) -> Tensor:
        """The weights (N,K) in float32, made when they are asked for."""
        return values(self.codes)


class QuantLinear(Quantized, nn.Linear):  # type: ignore[override]  # the weight is made
    """nn.Linear with a weight in integers."""

    laid_out: Tensor | None
    kernel_scale: Tensor | None

    def __init__(self, codes: Codes, bias: nn.Parameter | None = None) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a weight
        self.out_features, self.in_features = codes.shape
        self.hold(codes)
        self.register_parameter("bias", bias)
        self.ready()

    def ready(self) -> None:
        """Note which kernel there is; weights are laid out for it when it is first used."""
        self.kernel = kernel_for(self.codes)
        self.native: Callable[[Tensor], Tensor] | None = None
        for name in LAID_OUT:
            self.register_buffer(name, None, persistent=False)

    def lay_out(self) -> None:
        """Lay 4 bits out as this CPU's kernel reads them; another CPU's layout differs."""
        codes, q, scale = self.codes, self.q, torch.ones(len(self.q), dtype=torch.bfloat16)
        if codes.zero is not None:
            q = aten._convert_weight_to_int4pack_for_cpu(unpacked(codes.q).int(), 1)
            q = q.clone()  # into the room of the int32 integers: else memory grows by them
            middle = codes.zero.float() + 8 * codes.scale.float()  # its zero is what 8 stands for
            pairs = torch.stack((codes.scale, middle), -1)  # (N,G,2)
            scale = pairs.transpose(0, 1).contiguous().bfloat16()
        self.laid_out, self.kernel_scale = q, scale

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.ready()

    def forward(self, x: Tensor) -> Tensor:
        """x W^T + b, (...,in_features) -> (...,out_features)."""
        rows = x.numel() // self.in_features
        learns = x.requires_grad and torch.is_grad_enabled()  # the kernels have no gradient
        integers = rows > 0 and x.is_cpu and not learns
        if integers and self.native is not None:  # any number of rows: each is as it is alone
            y = self.native(x.reshape(rows, -1).float())  # with the bias
            return y.to(x.dtype).view(*x.shape[:-1], -1)
        if not integers or not self.kernel or rows > ROWS:
            return F.linear(x, self.weight.to(x.dtype), self.bias)
        y = self.product(x.reshape(rows, -1).bfloat16())
        y = y if self.bias is None else y + self.bias
        return y.to(x.dtype).view(*x.shape[:-1], -1)

    def product(self, x: Tensor) -> Tensor:
        """x W^T by the kernel, bfloat16 (rows,in_features) -> (rows,out_features)."""
        if self.laid_out is None:
            self.lay_out()
        if self.zero is None:  # scales in float32, after the sum: exact
            return aten._weight_int8pack_mm(x, self.laid_out, self.kernel_scale) * self.scale[:, 0]
        group = self.in_features // self.scale.size(1)
        return aten._weight_int4pack_mm_for_cpu(x, self.laid_out, group, self.kernel_scale)


class QuantEmbedding(Quantized, nn.Embedding):  # type: ignore[override]
    """nn.Embedding with a weight in integers."""

    def __init__(self, codes: Codes) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = codes.shape
        self.padding_idx = self.max_norm = None
        self.scale_grad_by_freq = self.sparse = False
        self.norm_type = 2.0
        self.hold(codes)

    def forward(self, idx: Tensor) -> Tensor:
        """Vectors of ids, (...) -> (...,C) in float32."""
        return values(self.codes[idx.flatten()]).view(*idx.shape, -1)


def quantized_layers(model: nn.Module) -> dict[str, Quantized]:
    """The layers in integers by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Quantized)}


def replace_layer(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put another layer where the one of this name is."""
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, new.train(model.training))


def quantized(layer: nn.Module, codes: Codes) -> Quantized:
    """The layer with its weight in integers."""
    if isinstance(layer, nn.Embedding):
        return QuantEmbedding(codes)
    return QuantLinear(codes, getattr(layer, "bias", None))


def places(model: TinyGPT) -> dict[str, nn.Linear | nn.Embedding]:
    """The layers that may be quantized, by name: linear ones of the blocks, tok_emb, head."""
    found = {
        f"blocks.{name}": layer for name, layer in model.blocks.named_modules() if is_plain(layer)
    }
    return {**found, "tok_emb": model.tok_emb, "head": model.head}


def bits_of(name: str, bits: int, embedding_bits: int) -> int:
    """Bits of the layer of this name; 32 leaves it as it is."""
    return embedding_bits if name in ("tok_emb", "head") else bits


def quantize(
    model: TinyGPT,
    bits: int,
    group: int = 32,
    embedding_bits: int = 8,
    made: Mapping[str, Codes] | None = None,
) -> TinyGPT:
    """Round a model's matrices to the nearest integers, in place; gives the model.

    Embedding and head have their own bits, 32 for none. Norms, biases and learned positions stay.
    `made` are codes by layer that something better than rounding has found. Raises ValueError for
    a model that is quantized, has adapters, or a layer that has no whole groups; it stays then.
    """
    if quantized_layers(model):
        raise ValueError("the model is quantized already; take the one that it was made from")
    layers = places(model)
    if odd := [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n not in layers]:
        raise ValueError(f"{odd[0]} is no plain layer; merge adapters first")
    made = made or {}
    codes: dict[str, Codes] = {}
    for name, layer in layers.items():
        n = bits_of(name, bits, embedding_bits)
        if name == "head" and layer.weight is model.tok_emb.weight and "tok_emb" in codes:
            codes[name] = codes["tok_emb"]
        elif n != 32:
            codes[name] = made.get(name) or named_codes(name, layer.weight.detach(), n, group)
    for name, new in codes.items():
        replace_layer(model, name, quantized(layers[name], new))
    return model


def named_codes(name: str, weight: Tensor, bits: int, group: int) -> Codes:
    """`codes_of`, whose errors name the layer."""
    try:
        return codes_of(weight, bits, group)
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from None


def with_bias(layer: nn.Linear, bias: nn.Parameter | None) -> Any:
    """The layer with this bias."""
    layer.register_parameter("bias", bias)
    return layer


@torch.no_grad()
def dequantize(model: TinyGPT) -> TinyGPT:
    """Put plain layers with the values of the integers in place of all; gives the model."""
    for name, layer in quantized_layers(model).items():
        weight = nn.Parameter(layer.weight)
        N, K = weight.shape
        if isinstance(layer, QuantLinear):
            new = with_bias(nn.Linear(K, N, bias=False, device="meta"), layer.bias)
        else:
            new = nn.Embedding(N, K, device="meta")
        new.weight = weight
        replace_layer(model, name, new)
    if model.config.tie_weights:
        model.head.weight = model.tok_emb.weight
    return model


def restore(model: TinyGPT, state: Mapping[str, Tensor]) -> TinyGPT:
    """Make a model's layers those of a quantized model's state dict, in place; gives the model.

    Nothing happens for a plain one. The state is yet to be loaded, with assign=True. Raises
    ValueError for codes that are not of the model's layers.
    """
    names = [key.removesuffix(".q") for key in state if key.endswith(".q")]
    layers = places(model) if names else {}
    for name in names:
        if name not in layers or f"{name}.scale" not in state:
            raise ValueError(f"{name}.q is of no layer that this model has")
        parts = (state.get(f"{name}.{part}") for part in PARTS)
        codes = Codes(*(t if t is None else t.to("meta") for t in parts))  # type: ignore[arg-type]
        check_codes(codes, name, layers[name].weight.shape)
        replace_layer(model, name, quantized(layers[name], codes))
    return model


def count(model: TinyGPT) -> int:
    """The parameters, those in integers too; a tied head counts once."""
    seen = {layer.q.data_ptr(): layer.codes.shape for layer in quantized_layers(model).values()}
    return model.n_params() + sum(N * K for N, K in seen.values())
