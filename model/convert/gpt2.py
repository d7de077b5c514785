"""GPT-2's weights and config.json in our names, and back."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from model.config import GPTConfig
from model.convert.names import PLAIN, State, from_hf, refuse_others, renamed_values, to_hf

NAMES = {  # Hugging Face's name without "transformer." -> ours; {} is the layer
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
KEYS = {  # key of config.json -> ours
    "vocab_size": "vocab_size",
    "n_positions": "block_size",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "d_model",
    "n_inner": "d_ff",
    "layer_norm_epsilon": "norm_eps",
    "tie_word_embeddings": "tie_weights",
}
ACT: dict[str, Any] = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
ACT |= {"gelu": "gelu", "relu": "relu"}  # of two names for one, the last is written
DEFAULTS: dict[str, Any] = {"activation_function": "gelu_new"}  # where a config.json is silent
FIXED: dict[str, Any] = {**PLAIN, "pos": "learned", "norm": "layernorm", "bias": True}


def transposed(state: State) -> dict[str, Tensor]:
    """Transpose GPT-2's four matrices a layer, which it keeps as (in, out): its own inverse."""
    matrix = re.compile(r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(up|down))\.weight")
    return {k: t.T.contiguous() if matrix.fullmatch(k) else t for k, t in state.items()}


def gpt2_from_hf(state: State) -> dict[str, Tensor]:
    """Weights of GPT2LMHeadModel, or of its published file -> TinyGPT's."""
    return transposed(from_hf(state, NAMES, "transformer."))


def gpt2_to_hf(state: State) -> dict[str, Tensor]:
    """TinyGPT's weights -> GPT2LMHeadModel's. Needs pos=learned, norm=layernorm, bias=true."""
    return to_hf(transposed(state), NAMES, "transformer.")


def config_from_gpt2(hf: Mapping[str, Any]) -> GPTConfig:
    """Read GPT-2's config.json. ValueError for what TinyGPT has no flag for."""
    hf = {**DEFAULTS, **hf}
    refuse_others(hf, activation_function=ACT, scale_attn_by_inverse_layer_idx=[False])
    refuse_others(hf, scale_attn_weights=[True], add_cross_attention=[False])
    return GPTConfig(**renamed_values(hf, KEYS), **FIXED, mlp=ACT[hf["activation_function"]])


def config_to_gpt2(config: GPTConfig) -> dict[str, Any]:
    """Write GPT-2's config.json. ValueError if GPT-2 is not built so."""
    act = {ours: theirs for theirs, ours in ACT.items()}
    refuse_others(vars(config), mlp=act, **{name: [value] for name, value in FIXED.items()})
    refuse_others({"n_kv_head": config.kv_heads}, n_kv_head=[config.n_head])
    refuse_others({"head_dim": config.head_size}, head_dim=[config.d_model / config.n_head])
    full = replace(config, d_ff=config.hidden)
    hf = {key: getattr(full, ours) for key, ours in KEYS.items()}
    return {"model_type": "gpt2", **hf, "activation_function": act[config.mlp]}
