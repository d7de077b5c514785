"""Weights as a table and bytes, for a page: matrices rounded, vectors in float32."""

from typing import Any

from torch import Tensor

from model import TinyGPT
from model.adapt.rounding import GROUPS, codes_of, values
from utils.hub.exporter import MOST

TYPES = {"F16": "f16", "INT8": "int8", "INT4": "int4"}
GROUP = min(GROUPS)  # of int4: so many weights share a scale and a zero in float16
READ = "tok_emb.weight", "head.weight"  # stay in int8, as utils.compress leaves them

State = dict[str, Tensor]


def own_state(model: TinyGPT) -> State:
    """The weights in float32; of a tied head only the embedding."""
    state = {name: tensor.detach().float() for name, tensor in model.state_dict().items()}
    if model.config.tie_weights:
        del state["head.weight"]
    return state


def packed(state: State, dtype: str) -> tuple[list[list[Any]], bytes, State]:
    """Rows (name, shape, type, offset), the bytes, and the state that they give back."""
    table, parts, rounded, size = [], [], {}, 0
    for name, tensor in state.items():
        kind = kind_of(name, tensor, dtype)
        part, back = packed_tensor(name, tensor, kind)
        table.append([name, list(tensor.shape), kind, size])
        parts.append(part)
        size += len(part)
        rounded[name] = back
    if "head.weight" not in rounded:
        rounded["head.weight"] = rounded["tok_emb.weight"]
    return table, b"".join(parts), rounded


def kind_of(name: str, tensor: Tensor, dtype: str) -> str:
    """What a tensor is rounded to: vectors not at all, what 4 bits do not suit to 8."""
    if tensor.ndim != 2:
        return "f32"
    whole = tensor.size(1) % GROUP == 0 and name not in READ
    return "int8" if dtype == "int4" and not whole else dtype


def packed_tensor(name: str, w: Tensor, kind: str) -> tuple[bytes, Tensor]:
    """A tensor's bytes and what they are read as. ValueError for more than float16 can say."""
    if kind == "f32":
        return in_bytes(w), w
    if kind == "f16":
        if not (most := float(w.abs().max())) <= MOST:
            raise ValueError(f"F16 ends at {MOST}; {name} has {most:g}: take --type int8")
        return in_bytes(w.half()), w.half().float()
    codes = codes_of(w, int(kind.removeprefix("int")), GROUP)
    parts = (codes.scale, codes.zero, codes.q)
    return b"".join(in_bytes(part) for part in parts if part is not None), values(codes)


def in_bytes(tensor: Tensor) -> bytes:
    """Numbers as they lie in a file, the low byte first."""
    array = tensor.numpy()
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
