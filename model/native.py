"""A library in C++ (native.cpp) for weights in small integers: its structures, and its product.

How it is built, `utils.native` knows; here it comes as ctypes has loaded it. How weights are laid
out for it, `model.adapt.layout` knows. Letters: B rows, N outputs, K inputs.
"""

import ctypes
from ctypes import c_int32, c_void_p
from typing import Any

import torch
from torch import Tensor, nn

LANES, GROUP = 16, 32  # outputs side by side, inputs that are rounded together


class LinearC(ctypes.Structure):
    """`Linear` of native.cpp."""

    _fields_ = (
        ("data", c_void_p),
        ("bias", c_void_p),
        *((name, c_int32) for name in ("N", "K", "bits", "unused")),
    )


class NativeLinear:
    """A matrix (N,K) as the library reads it, and its product; the bias has 16 ceil(N / 16)."""

    def __init__(
        self,
        library: ctypes.CDLL,
        data: Tensor,
        bias: Tensor | None,
        shape: tuple[int, int],
        bits: int,
    ) -> None:
        self.lib, self.data, self.bias = library, data, bias  # kept, since c has addresses
        address = None if bias is None else bias.data_ptr()
        self.c = LinearC(data.data_ptr(), address, *shape, bits, 0)

    def __deepcopy__(self, memo: dict[int, Any]) -> "NativeLinear":
        return self  # it never changes, and addresses can't be copied

    def __call__(self, x: Tensor) -> Tensor:
        """x W^T + b, float32 (B,K) -> (B,N)."""
        x, y = x.contiguous(), x.new_empty(len(x), self.c.N)
        pointers = (c_void_p(t.data_ptr()) for t in (x, y))
        self.lib.product(ctypes.byref(self.c), len(x), torch.get_num_threads(), *pointers)
        return y


def native_of(layer: nn.Module | None) -> NativeLinear | None:
    """A layer as the library reads it, if it does."""
    found = getattr(layer, "native", None)
    return found if isinstance(found, NativeLinear) else None
