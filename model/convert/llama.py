"""LLaMA's weights and config.json in our names, and back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from model.config import GPTConfig
from model.convert.names import (
    PLAIN,
    State,
    from_hf,
    join_qkv,
    part_qkv,
    refuse_others,
    renamed_values,
    to_hf,
)
from model.rope_scaling import KINDS, ORIGINAL, canonical, longer_base, parse_scaling

NAMES = {  # Hugging Face's name without "model." -> ours; q, k and v are one matrix here
    "embed_tokens": "tok_emb",
    "layers.{}.input_layernorm": "blocks.{}.norm1",
    "layers.{}.self_attn.qkv_proj": "blocks.{}.attn.qkv",
    "layers.{}.self_attn.o_proj": "blocks.{}.attn.proj",
    "layers.{}.post_attention_layernorm": "blocks.{}.norm2",
    "layers.{}.mlp.gate_proj": "blocks.{}.mlp.gate",
    "layers.{}.mlp.up_proj": "blocks.{}.mlp.up",
    "layers.{}.mlp.down_proj": "blocks.{}.mlp.down",
    "norm": "norm",
    "lm_head": "head",
}
PARTS = ("q_proj", "k_proj", "v_proj")
KEYS = {  # key of config.json -> ours
    "vocab_size": "vocab_size",
    "max_position_embeddings": "block_size",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "num_key_value_heads": "n_kv_head",
    "head_dim": "head_dim",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tie_weights",
    "rope_theta": "rope_theta",
    "attention_bias": "bias",
}
ACT: dict[str, Any] = {"silu": "swiglu", "gelu": "geglu"}
DEFAULTS: dict[str, Any] = {  # where a config.json is silent
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
}
NEEDED: tuple[str, ...] = (
    "vocab_size",
    "max_position_embeddings",
    "num_hidden_layers",
    "num_attention_heads",
)
NEEDED += ("hidden_size", "intermediate_size")
FIXED: dict[str, Any] = {**PLAIN, "pos": "rope", "norm": "rmsnorm"}


def llama_from_hf(state: State) -> dict[str, Tensor]:
    """Weights of LlamaForCausalLM -> TinyGPT's. ValueError if q, k or v is missing."""
    return from_hf(join_qkv(state, PARTS, "qkv_proj"), NAMES, "model.")


def llama_to_hf(state: State) -> dict[str, Tensor]:
    """TinyGPT's weights -> LlamaForCausalLM's. Needs pos=rope, norm=rmsnorm, a gated mlp."""
    q = state["blocks.0.attn.proj.weight"].size(1)  # rows of q
    return part_qkv(to_hf(state, NAMES, "model."), PARTS, "qkv_proj", q)


def rope_of(hf: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_parameters`, or `rope_scaling` and `rope_theta` in older files, as one dict."""
    newer, older = (hf.get(key) or {} for key in ("rope_parameters", "rope_scaling"))
    if not isinstance(newer, dict) or not isinstance(older, dict):
        raise ValueError("rope_parameters, or rope_scaling, is no object")
    if newer and older and newer != older:
        raise ValueError("rope_parameters and rope_scaling are both there and differ; keep one")
    rope = {k: v for k, v in {**newer, **older}.items() if v is not None}
    theta = rope.get("rope_theta", hf.get("rope_theta"))
    return rope if theta is None else {**rope, "rope_theta": theta}


def scaling_from(rope: Mapping[str, Any], block_size: int) -> str:
    """What `rope_of` found, as our setting. ValueError for what has no counterpart."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    ours = "ntk" if kind == "dynamic" else kind
    if ours not in ["default", *KINDS]:
        known = ", ".join(["default", "dynamic", *KINDS])
        raise ValueError(f"rope_type={kind!r} has no counterpart; known: {known}")
    keys = KINDS.get(ours, {})
    if ours == "yarn" and rope.get("truncate") is True:  # what it is without being said
        rope = {k: v for k, v in rope.items() if k != "truncate"}
    if odd := sorted(rope.keys() - keys.keys() - {"rope_type", "type", "rope_theta"}):
        raise ValueError(f"rope_type={kind!r} with {odd[0]}={rope[odd[0]]!r} has no counterpart")
    if ours == "default":
        return ""
    values = {ORIGINAL: block_size, **rope}
    if ours == "ntk":  # as transformers, which takes another length from nowhere
        values[ORIGINAL] = block_size
    return canonical(ours, {k: float(values[k]) for k in keys if k in values})


def rope_to(config: GPTConfig) -> dict[str, Any]:
    """Our settings as `rope_parameters`.

    "dynamic" knows the context alone, so NTK for a longer one is said by the base that it takes.
    """
    D, theta, text, T = config.rope
    kind, values = parse_scaling(text)
    if kind == "ntk" and values[ORIGINAL] < T:
        kind, values, theta = "", {}, longer_base(theta, values, T, D)
    elif kind == "ntk":
        kind = "dynamic"
        del values[ORIGINAL]
    whole = {k: int(v) if v.is_integer() else v for k, v in values.items()}
    if not whole.get("attention_factor", 1):
        del whole["attention_factor"]
    return {"rope_type": kind or "default", **whole, "rope_theta": theta}


def config_from_llama(hf: Mapping[str, Any]) -> GPTConfig:
    """Read LLaMA's config.json. ValueError for what TinyGPT has no flag for."""
    rope = rope_of(hf)
    hf = {**DEFAULTS, **hf, **{k: v for k, v in rope.items() if k == "rope_theta"}}
    if missing := [key for key in NEEDED if hf.get(key) is None]:
        raise ValueError(f"it has no {missing[0]}")
    if hf.get("head_dim") == hf["hidden_size"] / max(hf["num_attention_heads"], 1):
        del hf["head_dim"]  # what it is without being said
    refuse_others(hf, hidden_act=ACT, mlp_bias=[hf["attention_bias"]])
    refuse_others(hf, partial_rotary_factor=[1, None])
    scaling = scaling_from(rope, hf["max_position_embeddings"])
    act = ACT[hf["hidden_act"]]
    return GPTConfig(**renamed_values(hf, KEYS), **FIXED, mlp=act, rope_scaling=scaling)


def widths(config: GPTConfig) -> dict[str, Any]:
    """The widths that a 0 stands for."""
    return {"d_ff": config.hidden, "n_kv_head": config.kv_heads, "head_dim": config.head_size}


def config_to_llama(config: GPTConfig) -> dict[str, Any]:
    """Write LLaMA's config.json. ValueError if LLaMA is not built so."""
    act = {ours: theirs for theirs, ours in ACT.items()}
    refuse_others(vars(config), mlp=act, **{name: [value] for name, value in FIXED.items()})
    full = replace(config, **widths(config))
    hf = {key: getattr(full, ours) for key, ours in KEYS.items()}
    del hf["rope_theta"]
    more = {"hidden_act": act[config.mlp], "mlp_bias": config.bias}
    more["rope_parameters"] = rope_to(config)
    return {"model_type": "llama", **hf, **more}
