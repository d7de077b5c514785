"""Weights in integers laid out for our library in C++ (native.cpp), and layers that take it.

Letters: N outputs, K inputs, G = K / 32, P panels of 16 outputs.
"""

import ctypes
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.adapt.quant import QuantLinear, quantized_layers
from model.adapt.rounding import Codes, unpacked
from model.native import GROUP, LANES, NativeLinear

Model = TypeVar("Model", bound=nn.Module)


def in_panels(x: Tensor) -> Tensor:
    """Rows (N,...) in panels of 16, zeros below the last: (P,16,...)."""
    rows = F.pad(x.flatten(1), (0, 0, 0, -len(x) % LANES))
    return rows.view(-1, LANES, *x.shape[1:])


def as_bytes(x: Tensor) -> Tensor:
    """The bytes of the last dimension, (...,n) -> (...,n * itemsize) uint8."""
    return x.contiguous().view(torch.uint8)


def laid_out(codes: Codes) -> Tensor:
    """The bytes of a matrix as native.cpp reads them: panel by panel, in it group by group.

    Byte 4r + c of 64 belongs to output r and input c of four. 4 bits: 64 bytes have eight inputs,
    in their low halves the first four; after 32 inputs come 16 scales and 16 zeros in float16.
    8 bits: integers are 128 too large, without a sign; 16 scales in float32 end a panel.
    """
    if codes.zero is None:
        q = (in_panels(codes.q).view(torch.uint8) ^ 128).unflatten(2, (-1, 4))  # (P,16,K/4,4)
        scale = in_panels(codes.scale.float()).squeeze(2)
        return torch.cat((q.transpose(1, 2).flatten(1), as_bytes(scale)), 1).flatten()
    q = in_panels(unpacked(codes.q)).unflatten(2, (-1, 4, 2, 4))  # (P,16,G,4,2,4)
    both = q[..., 0, :] | q[..., 1, :] << 4
    both = both.permute(0, 2, 3, 1, 4).flatten(2)  # (P,G,256)
    per = codes.group // GROUP
    pairs = [in_panels(t).repeat_interleave(per, 2).mT for t in (codes.scale, codes.zero)]
    return torch.cat((both, *map(as_bytes, pairs)), 2).flatten()


def fits(layer: nn.Module) -> bool:
    """Whether the library can multiply by a layer: integers on a CPU, whole groups of 32."""
    return isinstance(layer, QuantLinear) and layer.q.is_cpu and layer.in_features % GROUP == 0


def native_linear(library: ctypes.CDLL, layer: QuantLinear) -> NativeLinear:
    """A layer as the library reads it."""
    codes, bias = layer.codes, None
    if layer.bias is not None:
        bias = F.pad(layer.bias.detach().float(), (0, -layer.out_features % LANES))
    return NativeLinear(library, laid_out(codes), bias, codes.shape, codes.bits)


def native(model: Model, library: ctypes.CDLL | None) -> Model:
    """Have quantized layers multiply few rows by the library, or by torch (None), in place.

    Gives the model.
    """
    for layer in quantized_layers(model).values():
        if isinstance(layer, QuantLinear):
            use = library is not None and fits(layer)
            layer.native = native_linear(library, layer) if use and library else None
    return model
