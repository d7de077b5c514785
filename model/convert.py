"""Weights to and from Hugging Face's names: GPT-2 and LLaMA. Dictionaries in and out, no files.

    config = config_from_hf(json.loads(Path("config.json").read_text()))
    model = TinyGPT(config)
    model.load_state_dict(gpt2_from_hf(weights))

Pure functions: what they are given stays as it is, and unchanged tensors are shared, not copied.
"""

import re
from dataclasses import replace
from typing import Any

import torch

from model.config import GPTConfig

GPT2 = {  # Hugging Face's name without "transformer." -> ours; {} is the layer
    "wte": "tok_emb",
    "wpe": "pos_emb",
    "h.{}.ln_1": "blocks.{}.norm1",
    "h.{}.attn.c_attn": "blocks.{}.attn.qkv",
    "h.{}.attn.c_proj": "blocks.{}.attn.proj",
    "h.{}.ln_2": "blocks.{}.norm2",
    "h.{}.mlp.c_fc": "blocks.{}.mlp.up",
    "h.{}.mlp.c_proj": "blocks.{}.mlp.down",
    "ln_f": "norm",
    "lm_head": "head",
}
LLAMA = {  # the same without "model."; q_proj, k_proj and v_proj are one matrix here
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
MASKS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # constants in older files


def rename(state, names):
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


def from_hf(state, names, prefix):
    """Give Hugging Face's weights our names; a head that is left out is the token embedding.

    Raises ValueError for a key without counterpart, or if there is no embedding. What else may be
    missing, `load_state_dict` says.
    """
    kept = {k.removeprefix(prefix): t for k, t in state.items() if not k.endswith(MASKS)}
    ours = rename(kept, names)
    if "tok_emb.weight" not in ours:
        raise ValueError(f"the token embedding is missing among {len(state)} weights")
    return {**ours, "head.weight": ours.get("head.weight", ours["tok_emb.weight"])}


def to_hf(state, names, prefix):
    """Undo `from_hf`."""
    theirs = rename(state, {ours: name for name, ours in names.items()})
    return {k if k.startswith("lm_head") else prefix + k: t for k, t in theirs.items()}


def turned(state):
    """Transpose GPT-2's four matrices a layer, which it keeps as (in, out): its own inverse."""
    matrix = re.compile(r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(up|down))\.weight")
    return {k: t.T.contiguous() if matrix.fullmatch(k) else t for k, t in state.items()}


def gpt2_from_hf(state):
    """Weights of GPT2LMHeadModel, or of its published file -> TinyGPT's."""
    return turned(from_hf(state, GPT2, "transformer."))


def gpt2_to_hf(state):
    """TinyGPT's weights -> GPT2LMHeadModel's. Needs pos=learned, norm=layernorm, bias=true."""
    return to_hf(turned(state), GPT2, "transformer.")


def llama_from_hf(state):
    """Weights of LlamaForCausalLM -> TinyGPT's. ValueError if q, k or v is missing."""
    joined = dict(state)
    for q in [key for key in state if ".q_proj." in key]:
        parts = [q.replace("q_proj", f"{x}_proj") for x in "qkv"]
        if missing := [key for key in parts if key not in state]:
            raise ValueError(f"{q} stands there without {missing[0]}")
        joined[q.replace("q_proj", "qkv_proj")] = torch.cat([joined.pop(key) for key in parts])
    return from_hf(joined, LLAMA, "model.")


def llama_to_hf(state):
    """TinyGPT's weights -> LlamaForCausalLM's. Needs pos=rope, norm=rmsnorm, a gated mlp."""
    theirs, C = to_hf(state, LLAMA, "model."), state["tok_emb.weight"].size(1)
    for key in [key for key in theirs if ".qkv_proj." in key]:
        qkv = theirs.pop(key)
        kv = (len(qkv) - C) // 2  # rows of k, and of v
        for x, part in zip("qkv", qkv.split((C, kv, kv)), strict=True):
            theirs[key.replace("qkv_proj", f"{x}_proj")] = part.clone()
    return theirs


GPT2_CONFIG = {  # key of config.json -> ours
    "vocab_size": "vocab_size",
    "n_positions": "block_size",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "d_model",
    "n_inner": "d_ff",
    "layer_norm_epsilon": "norm_eps",
    "tie_word_embeddings": "tie_weights",
}
LLAMA_CONFIG = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "block_size",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "num_key_value_heads": "n_kv_head",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tie_weights",
    "rope_theta": "rope_theta",
    "attention_bias": "bias",
}
GPT2_ACT: dict[str, Any] = {"gelu_new": "gelu_tanh", "gelu": "gelu", "relu": "relu"}
LLAMA_ACT: dict[str, Any] = {"silu": "swiglu", "gelu": "geglu"}
PLAIN: dict[str, Any] = {"norm_at": "pre", "qk_norm": False, "window": 0}
GPT2_IS: dict[str, Any] = {**PLAIN, "pos": "learned", "norm": "layernorm", "bias": True}
LLAMA_IS: dict[str, Any] = {**PLAIN, "pos": "rope", "norm": "rmsnorm"}


def config_from_hf(hf) -> GPTConfig:
    """Read a config.json, as a dict, of model_type gpt2 or llama; dropout is left at 0.

    Raises ValueError for another kind of model, or a part of it that TinyGPT has no flag for.
    """
    if hf.get("model_type") == "gpt2":
        refuse_others(hf, activation_function=GPT2_ACT, scale_attn_by_inverse_layer_idx=[False])
        values = {ours: hf[key] for key, ours in GPT2_CONFIG.items() if hf.get(key) is not None}
        return GPTConfig(**values, **GPT2_IS, mlp=GPT2_ACT[hf["activation_function"]])
    if hf.get("model_type") != "llama":
        raise ValueError(f"model_type={hf.get('model_type')!r} is not gpt2 or llama")
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}  # newer and older files
    hf = {"tie_word_embeddings": False, "attention_bias": False, **hf, **rope}
    D, bias = hf["hidden_size"] // hf["num_attention_heads"], hf["attention_bias"]
    refuse_others(hf, hidden_act=LLAMA_ACT, mlp_bias=[bias], head_dim=[D, None])
    refuse_others(rope, rope_type=["default"], type=["default"])
    values = {ours: hf[key] for key, ours in LLAMA_CONFIG.items() if hf.get(key) is not None}
    return GPTConfig(**values, **LLAMA_IS, mlp=LLAMA_ACT[hf["hidden_act"]])


def refuse_others(hf, **known) -> None:
    """Raise ValueError for a value of hf that is not among those known; what is left out passes."""
    for name, values in known.items():
        if name in hf and hf[name] not in values:
            raise ValueError(f"{name}={hf[name]!r} has no counterpart; known: {list(values)}")


def config_to_hf(config: GPTConfig) -> dict[str, Any]:
    """Write what config.json needs to say. ValueError if neither GPT-2 nor LLaMA is so built."""
    llama = config.pos == "rope"
    fixed, keys = (LLAMA_IS, LLAMA_CONFIG) if llama else (GPT2_IS, GPT2_CONFIG)
    act = {ours: theirs for theirs, ours in (LLAMA_ACT if llama else GPT2_ACT).items()}
    refuse_others(vars(config), mlp=act, **{name: [value] for name, value in fixed.items()})
    full = replace(config, d_ff=config.hidden, n_kv_head=config.kv_heads)
    hf = {key: getattr(full, ours) for key, ours in keys.items()}
    if llama:
        rope = {"rope_type": "default", "rope_theta": hf.pop("rope_theta")}
        more = {"hidden_act": act[config.mlp], "mlp_bias": config.bias, "rope_parameters": rope}
        return {"model_type": "llama", **hf, **more}
    refuse_others({"n_kv_head": full.n_kv_head}, n_kv_head=[config.n_head])
    return {"model_type": "gpt2", **hf, "activation_function": act[config.mlp]}
