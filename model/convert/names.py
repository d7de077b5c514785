"""What the conversions share: a table of names, applied there and back."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]  # a state dict; it stays as it is, and unchanged tensors are shared
# what no peer differs in
PLAIN: dict[str, Any] = {"norm_at": "pre", "qk_norm": False, "window": 0, "emb_conv": 0}
MASKS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # constants in older files


def rename(state: State, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename by a table: h.3.ln_1.bias -> blocks.3.norm1.bias. ValueError for a key not in it."""
    out = {}
    for key, tensor in state.items():
        part, _, kind = key.rpartition(".")
        layer = re.search(r"\.(\d+)\.", part)
        name = names.get(re.sub(r"\.\d+\.", ".{}.", part, count=1))
        if name is None:
            raise ValueError(f"{key} has no counterpart; the model is of another kind")
        out[f"{name.format(layer and layer[1])}.{kind}"] = tensor
    return out


def from_hf(state: State, names: Mapping[str, str], prefix: str) -> dict[str, Tensor]:
    """Give Hugging Face's weights our names; a head that is left out is the token embedding.

    Raises ValueError for a key without counterpart, or if there is no embedding. What else may be
    missing, `load_state_dict` says.
    """
    kept = {k.removeprefix(prefix): t for k, t in state.items() if not k.endswith(MASKS)}
    ours = rename(kept, names)
    if "tok_emb.weight" not in ours:
        raise ValueError(f"the token embedding is missing among {len(state)} weights")
    return {**ours, "head.weight": ours.get("head.weight", ours["tok_emb.weight"])}


def to_hf(state: State, names: Mapping[str, str], prefix: str) -> dict[str, Tensor]:
    """Undo `from_hf`."""
    theirs = rename(state, {ours: name for name, ours in names.items()})
    return {k if k.startswith("lm_head") else prefix + k: t for k, t in theirs.items()}


def refuse_others(values: Mapping[str, Any], **known: Iterable[Any]) -> None:
    """Raise ValueError for a value that is not among those known; what is left out passes."""
    for name, choices in known.items():
        if name in values and values[name] not in choices:
            raise ValueError(f"{name}={values[name]!r} has no counterpart; known: {list(choices)}")


def renamed_values(hf: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """Give what a config.json says our names; null is as good as left out."""
    return {ours: hf[key] for key, ours in keys.items() if hf.get(key) is not None}
