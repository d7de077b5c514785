"""The kinds of model that a checkpoint may hold: a config, and what is built from it."""

from typing import Any

from model.bert import BertConfig, TinyBERT
from model.config import GPTConfig
from model.gpt import TinyGPT

MODELS: dict[str, tuple[type[GPTConfig], Any]] = {
    "gpt": (GPTConfig, TinyGPT),
    "bert": (BertConfig, TinyBERT),
}
