"""GGUF's weights and metadata in our names, and back: what llama.cpp calls llama and gpt2."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from model.config import GPTConfig
from model.convert.gpt2 import config_to_gpt2
from model.convert.llama import config_to_llama, widths
from model.convert.names import State, refuse_kind, rename
from model.rope_scaling import ORIGINAL, canonical, parse_scaling, scaled_frequencies

COMMON = {
    "token_embd": "tok_emb",
    "blk.{}.attn_norm": "blocks.{}.norm1",
    "blk.{}.attn_output": "blocks.{}.attn.proj",
    "blk.{}.ffn_norm": "blocks.{}.norm2",
    "blk.{}.ffn_up": "blocks.{}.mlp.up",
    "blk.{}.ffn_down": "blocks.{}.mlp.down",
    "output_norm": "norm",
    "output": "head",
}
QKV = {"blk.{}.attn_qkv": "blocks.{}.attn.qkv"}  # llama's q, k and v, joined first
NAMES = {
    "llama": {**COMMON, **QKV, "blk.{}.ffn_gate": "blocks.{}.mlp.gate"},
    "gpt2": {**COMMON, **QKV, "position_embd": "pos_emb"},
}
KEYS = {  # metadata key without the architecture -> ours
    "context_length": "block_size",
    "embedding_length": "d_model",
    "block_count": "n_layer",
    "feed_forward_length": "d_ff",
    "attention.head_count": "n_head",
}
LLAMA = {  # the same, for llama alone
    "attention.head_count_kv": "n_kv_head",
    "attention.layer_norm_rms_epsilon": "norm_eps",
    "rope.freq_base": "rope_theta",
}
EPS = "attention.layer_norm_epsilon"
OTHERS = (  # keys that are read by themselves, or that say nothing about what is computed
    "vocab_size",
    "tensor_data_layout",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "attention.key_length",
    "attention.value_length",
    "expert_count",
    "expert_used_count",
)
FREQS = "rope_freqs.weight"


def interleaved(x: Tensor, heads: int) -> Tensor:
    """Rows of q or k as llama.cpp has them: in each head pairs (i, i + D/2) side by side."""
    return x.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def halved(x: Tensor, heads: int) -> Tensor:
    """Undo `interleaved`."""
    return x.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def from_gguf(architecture: str, state: State, config: GPTConfig) -> dict[str, Tensor]:
    """GGUF's tensors, in PyTorch's order of dimensions -> TinyGPT's. ValueError for others."""
    joined = {k: t for k, t in state.items() if k != FREQS}
    for q in [key for key in state if ".attn_q." in key and architecture == "llama"]:
        names = [q.replace("attn_q.", f"attn_{x}.") for x in "qkv"]
        if missing := [name for name in names if name not in state]:
            raise ValueError(f"{q} is there without {missing[0]}")
        q_rows, k_rows, v_rows = (joined.pop(name) for name in names)
        check_rows(q, q_rows, config.n_head * config.head_size)
        parts = halved(q_rows, config.n_head), halved(k_rows, config.kv_heads), v_rows
        joined[q.replace("attn_q.", "attn_qkv.")] = torch.cat(parts)
    ours = rename(joined, NAMES[architecture])
    if "tok_emb.weight" not in ours:
        raise ValueError(f"token_embd is missing among {len(state)} tensors")
    return {**ours, "head.weight": ours.get("head.weight", ours["tok_emb.weight"])}


def check_rows(name: str, x: Tensor, rows: int) -> None:
    """Raise ValueError for another number of rows than the metadata promises."""
    if len(x) != rows:
        raise ValueError(f"{name} has {len(x)} rows; the metadata says {rows}")


def to_gguf(architecture: str, state: State, config: GPTConfig) -> dict[str, Tensor]:
    """Undo `from_gguf`; a tied head is left out. State dicts as TinyGPT has them."""
    left_out = ("head.weight",) if config.tie_weights else ()
    kept = {k: t for k, t in state.items() if k not in left_out}
    theirs = rename(kept, {ours: name for name, ours in NAMES[architecture].items()})
    if architecture == "gpt2":
        return theirs
    H, K, D = config.n_head, config.kv_heads, config.head_size
    for key in [key for key in theirs if ".attn_qkv." in key]:
        q, k, v = theirs.pop(key).split((H * D, K * D, K * D))
        parts = interleaved(q, H), interleaved(k, K), v.clone()
        theirs |= {key.replace("qkv.", f"{x}."): t for x, t in zip("qkv", parts, strict=True)}
    if config.rope_scaling.startswith("llama3"):
        theirs[FREQS] = slower(config)
    return theirs


def slower(config: GPTConfig) -> Tensor:
    """How many times slower each pair rotates than without scaling (D/2,)."""
    D, theta, scaling, T = config.rope
    exponent = torch.arange(0, D, 2) / D
    return theta**-exponent / scaled_frequencies(exponent, theta, scaling, T)[0]


def refuse_keys(metadata: Mapping[str, Any], arch: str, known: Collection[str]) -> None:
    """Raise ValueError for a key of the architecture that is not known: it may change the model."""
    keys = [key for key in metadata if key.startswith(f"{arch}.")]
    if odd := sorted(key for key in keys if key.removeprefix(f"{arch}.") not in known):
        raise ValueError(f"{odd[0]}={metadata[odd[0]]!r}, which TinyGPT has no flag for")


def config_from_gguf(metadata: Mapping[str, Any], vocab_size: int) -> GPTConfig:
    """Read what a GGUF file says of its model. ValueError for what TinyGPT has no flag for.

    Whether the head is tied and there are biases, the tensors tell: the caller replaces these.
    """
    arch: Any = metadata.get("general.architecture")
    refuse_kind("architecture", arch, NAMES)
    keys = {**KEYS, **(LLAMA if arch == "llama" else {EPS: "norm_eps"})}
    refuse_keys(metadata, arch, {*keys, *OTHERS})
    values = {
        ours: metadata[f"{arch}.{k}"] for k, ours in keys.items() if f"{arch}.{k}" in metadata
    }
    if missing := [k for k, ours in KEYS.items() if ours not in values]:
        raise ValueError(f"the metadata has no {arch}.{missing[0]}")
    if not all(isinstance(v, int | float) for v in values.values()):
        raise ValueError("the layers differ in shape, which TinyGPT has no flag for")
    if arch == "gpt2":
        return GPTConfig(vocab_size=vocab_size, **values, mlp="gelu_tanh")
    usual = values["d_model"] // max(values["n_head"], 1)
    D = metadata.get("llama.attention.key_length", usual)
    for key in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        if metadata.get(f"llama.{key}", usual) != D:
            raise ValueError(f"llama.{key}={metadata.get(f'llama.{key}', usual)} is not {D}")
    if metadata.get("llama.expert_count"):
        raise ValueError("a mixture of experts, which TinyGPT has no flag for")
    scaling = scaling_from(metadata, values["block_size"])
    fixed: dict[str, Any] = {"pos": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False}
    D = 0 if usual == D else D
    return GPTConfig(vocab_size=vocab_size, **values, **fixed, head_dim=D, rope_scaling=scaling)


def scaling_from(metadata: Mapping[str, Any], block_size: int) -> str:
    """What the metadata says of longer texts, as our setting."""
    kind = metadata.get("llama.rope.scaling.type", "none")
    if kind == "none":
        return ""
    if kind not in ("linear", "yarn"):
        raise ValueError(f"llama.rope.scaling.type={kind!r} is not linear or yarn")
    values = {"factor": float(metadata.get("llama.rope.scaling.factor", 1.0))}
    if kind == "yarn":
        original = metadata.get("llama.rope.scaling.original_context_length", block_size)
        values[ORIGINAL] = float(original)
    return canonical(kind, values)


def with_slower(config: GPTConfig, factors: Tensor) -> GPTConfig:
    """The config with LLaMA 3's scaling, which GGUF keeps as a tensor (D/2,) of factors.

    ValueError unless they are those of a setting, as llama.cpp writes it or as the config has it.
    """
    most = float(factors.max()) if factors.numel() else 0.0
    values = {"factor": round(most, 4), "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    texts = [config.rope_scaling] if config.rope_scaling else []
    if not texts and math.isfinite(most) and most > 0:
        texts = [canonical("llama3", {**values, ORIGINAL: float(1 << n)}) for n in range(4, 21)]
    for text in texts:
        known = replace(config, rope_scaling=text)
        ours = slower(known)
        if ours.shape == factors.shape and torch.allclose(ours, factors, rtol=1e-5):
            return known
    raise ValueError(f"{FREQS} is not what LLaMA 3's scaling gives")


def config_to_gguf(config: GPTConfig) -> tuple[str, dict[str, Any]]:
    """Architecture and metadata of its model. ValueError if llama.cpp has no such model."""
    full = replace(config, **widths(config))
    if config.pos != "rope":
        config_to_gpt2(config)  # its errors
        if config.mlp != "gelu_tanh":
            raise ValueError(f"mlp={config.mlp}: llama.cpp's gpt2 has gelu_tanh only")
        names = {**KEYS, EPS: "norm_eps"}
        return "gpt2", {f"gpt2.{key}": getattr(full, ours) for key, ours in names.items()}
    config_to_llama(config)
    if config.mlp != "swiglu":
        raise ValueError(f"mlp={config.mlp}: llama.cpp's llama has swiglu only")
    names = {**KEYS, **LLAMA}
    values = {f"llama.{key}": getattr(full, ours) for key, ours in names.items()}
    values["llama.rope.dimension_count"] = config.head_size
    if config.head_dim:
        lengths = "llama.attention.key_length", "llama.attention.value_length"
        values |= dict.fromkeys(lengths, config.head_size)
    values["llama.vocab_size"] = config.vocab_size
    return "llama", {**values, **scaling_to(config)}


def scaling_to(config: GPTConfig) -> dict[str, Any]:
    """Undo `scaling_from`; llama3's waves go as a tensor. ValueError for what llama.cpp lacks."""
    if not config.rope_scaling:
        return {}
    kind, v = parse_scaling(config.rope_scaling)
    if kind == "llama3":
        return {}
    if (
        kind == "ntk"
        or v.get("attention_factor")
        or (v.get("beta_fast", 32), v.get("beta_slow", 1)) != (32, 1)
    ):
        raise ValueError(f"rope_scaling={config.rope_scaling!r} can't be said in GGUF")
    found = {"llama.rope.scaling.type": kind, "llama.rope.scaling.factor": v["factor"]}
    if kind == "yarn":
        found["llama.rope.scaling.original_context_length"] = int(v[ORIGINAL])
    return found
