"""Weights and configs to and from Hugging Face's names: dictionaries in and out, no files.

config = config_from_hf(json.loads(Path("config.json").read_text()))
model = TinyGPT(config)
model.load_state_dict(gpt2_from_hf(weights))
"""

from collections.abc import Callable, Mapping
from typing import Any

from model.bert import BertConfig
from model.config import GPTConfig
from model.convert.bert import bert_from_hf, bert_to_hf, config_from_bert, config_to_bert
from model.convert.gpt2 import config_from_gpt2, config_to_gpt2, gpt2_from_hf, gpt2_to_hf
from model.convert.llama import config_from_llama, config_to_llama, llama_from_hf, llama_to_hf
from model.convert.names import refuse_kind

__all__ = [
    "bert_from_hf",
    "bert_to_hf",
    "config_from_hf",
    "config_to_hf",
    "gpt2_from_hf",
    "gpt2_to_hf",
    "llama_from_hf",
    "llama_to_hf",
]
CONFIG_FROM: dict[str, Callable[[Mapping[str, Any]], GPTConfig]]
CONFIG_FROM = {"gpt2": config_from_gpt2, "llama": config_from_llama, "bert": config_from_bert}


def config_from_hf(hf: Mapping[str, Any]) -> GPTConfig:
    """Read a config.json, as a dict, of model_type gpt2, llama or bert; dropout is left at 0.

    Raises ValueError for another kind of model, or a part of it that we have no flag for.
    """
    kind: Any = hf.get("model_type")
    refuse_kind("model_type", kind, CONFIG_FROM)
    return CONFIG_FROM[kind](hf)


def config_to_hf(config: GPTConfig) -> dict[str, Any]:
    """Write what config.json needs to say. ValueError if GPT-2, LLaMA or BERT is not so built."""
    if isinstance(config, BertConfig):
        return config_to_bert(config)
    return config_to_llama(config) if config.pos == "rope" else config_to_gpt2(config)
