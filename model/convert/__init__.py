"""Weights and configs to and from Hugging Face's names: dictionaries in and out, no files.

config = config_from_hf(json.loads(Path("config.json").read_text()))
model = TinyGPT(config)
model.load_state_dict(gpt2_from_hf(weights))
"""

from collections.abc import Mapping
from typing import Any

from model.config import GPTConfig
from model.convert.gpt2 import config_from_gpt2, config_to_gpt2, gpt2_from_hf, gpt2_to_hf
from model.convert.llama import config_from_llama, config_to_llama, llama_from_hf, llama_to_hf
from model.convert.names import refuse_kind

__all__ = [
    "config_from_hf",
    "config_to_hf",
    "gpt2_from_hf",
    "gpt2_to_hf",
    "llama_from_hf",
    "llama_to_hf",
]
CONFIG_FROM = {"gpt2": config_from_gpt2, "llama": config_from_llama}


def config_from_hf(hf: Mapping[str, Any]) -> GPTConfig:
    """Read a config.json, as a dict, of model_type gpt2 or llama; dropout is left at 0.

    Raises ValueError for another kind of model, or a part of it that TinyGPT has no flag for.
    """
    kind: Any = hf.get("model_type")
    refuse_kind("model_type", kind, CONFIG_FROM)
    return CONFIG_FROM[kind](hf)


def config_to_hf(config: GPTConfig) -> dict[str, Any]:
    """Write what config.json needs to say. ValueError if neither GPT-2 nor LLaMA is so built."""
    return config_to_llama(config) if config.pos == "rope" else config_to_gpt2(config)
