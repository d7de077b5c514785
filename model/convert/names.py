"""What the conversions share: a table of names, applied there and back."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

State = Mapping[str, Tensor]  # a state dict; it stays as it is, and unchanged tensors are shared
# what no peer differs in
PLAIN: dict[str, Any] = {"norm_at": "pre", "qk_norm": False, "window": 0}
PLAIN |= {"emb_conv": 0, "experts": 0}
NEAR = {  # models that we lack, as config.json and GGUF name them -> what they are, nearly
    "mistral": "llama with a sliding window",
    "mixtral": "llama with experts",
    "qwen2": "llama with biases for q, k and v alone",
    "qwen3": "llama with norms of q and k",
    "smollm3": "llama without rope in some layers",
    "gemma": "llama with scaled embeddings",
    "phi3": "llama with q, k and v in one matrix",
    "granite": "llama with factors for what its layers add",
    "olmo2": "llama with its norms after each sublayer",
    "gpt_bigcode": "gpt2 with one head of keys and values",
    "starcoder": "gpt2 with one head of keys and values",
    "gpt_neo": "gpt2 with a window in every other layer",
    "opt": "gpt2 with relu and positions that begin at 2",
    "gptj": "gpt2 with rope, attention and MLP side by side",
    "gpt_neox": "gpt2 with rope, attention and MLP side by side",
    "roberta": "bert with positions that begin at 2",
    "distilbert": "bert without segments and pooler",
    "albert": "bert with one block for all layers",
    "electra": "bert with a head that finds replaced tokens",
    "modernbert": "bert with rope, and a window in most layers",
}
# constants in older files
MASKS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq", "embeddings.position_ids")


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
    if twice := sorted(k for k in kept if prefix + k in state and k in state):
        raise ValueError(f"{twice[0]} is there twice, also as {prefix}{twice[0]}; keep one")
    ours = rename(kept, names)
    if "tok_emb.weight" not in ours:
        raise ValueError(f"the token embedding is missing among {len(state)} weights")
    return {**ours, "head.weight": ours.get("head.weight", ours["tok_emb.weight"])}


def to_hf(state: State, names: Mapping[str, str], prefix: str) -> dict[str, Tensor]:
    """Undo `from_hf`."""
    theirs = rename(state, {ours: name for name, ours in names.items()})
    return {k if k.startswith("lm_head") else prefix + k: t for k, t in theirs.items()}


def join_qkv(state: State, parts: Sequence[str], whole: str) -> dict[str, Tensor]:
    """Put q, k and v, which are named `parts`, into one: x.q.weight -> x.qkv.weight.

    Raises ValueError if k or v is missing.
    """
    joined = dict(state)
    for q in [key for key in state if f".{parts[0]}." in key]:
        keys = [q.replace(parts[0], part) for part in parts]
        if missing := [key for key in keys if key not in state]:
            raise ValueError(f"{q} is there without {missing[0]}")
        joined[q.replace(parts[0], whole)] = torch.cat([joined.pop(key) for key in keys])
    return joined


def part_qkv(state: State, parts: Sequence[str], whole: str, q: int) -> dict[str, Tensor]:
    """Undo `join_qkv`; q has so many rows."""
    parted = dict(state)
    for key in [key for key in state if f".{whole}." in key]:
        qkv = parted.pop(key)
        kv = (len(qkv) - q) // 2  # rows of k, and of v
        for name, part in zip(parts, qkv.split((q, kv, kv)), strict=True):
            parted[key.replace(whole, name)] = part.clone()
    return parted


def refuse_kind(key: str, kind: Any, known: Iterable[str]) -> None:
    """Raise ValueError for a kind of model that is not known, and say which one it is near."""
    if kind not in list(known):
        near = NEAR.get(kind) if isinstance(kind, str) else None
        why = f"; it is {near}, which we have no flag for" if near else ""
        raise ValueError(f"{key}={kind!r} is not {' or '.join(known)}{why}")


def refuse_others(values: Mapping[str, Any], **known: Iterable[Any]) -> None:
    """Raise ValueError for a value that is not among those known; what is left out passes."""
    for name, choices in known.items():
        known_values = list(choices)  # in which anything can be looked up, a list or dict also
        if name in values and values[name] not in known_values:
            raise ValueError(f"{name}={values[name]!r} has no counterpart; known: {known_values}")


def renamed_values(hf: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """Give what a config.json says our names; null is as good as left out."""
    return {ours: hf[key] for key, ours in keys.items() if hf.get(key) is not None}
