"""Weights as a table and bytes, for a page: matrices rounded, vectors in float32."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import TinyGPT
from utils.hub.exporter import MOST

TYPES = {"F16": "f16", "INT8": "int8"}  # the latter with a float32 scale for each row

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
        kind = dtype if tensor.ndim == 2 else "f32"
        part, back = packed_tensor(name, tensor.numpy(), kind)
        table.append([name, list(tensor.shape), kind, size])
        parts.append(part)
        size += len(part)
        rounded[name] = torch.from_numpy(back)
    if "head.weight" not in rounded:
        rounded["head.weight"] = rounded["tok_emb.weight"]
    return table, b"".join(parts), rounded


def packed_tensor(name: str, w: np.ndarray, kind: str) -> tuple[bytes, np.ndarray]:
    """A tensor's bytes and what they are read as. ValueError for more than float16 can say."""
    if kind == "f32":
        return w.astype("<f4").tobytes(), w
    most = np.abs(w).max()
    if kind == "f16":
        if not most <= MOST:
            raise ValueError(f"F16 ends at {MOST}; {name} has {most:g}: take --type int8")
        return w.astype("<f2").tobytes(), w.astype(np.float16).astype(np.float32)
    scale = (np.abs(w).max(1) / 127).astype(np.float32)
    q = np.round(w / np.where(scale, scale, 1)[:, None]).astype(np.int8)
    return scale.astype("<f4").tobytes() + q.tobytes(), q * scale[:, None]
