"""ids -> logits. Opens no file, prints nothing, reads no environment; needs torch alone."""

from model.adapt.few_rows import few_rows
from model.attention import CausalSelfAttention
from model.config import GPTConfig
from model.generation import KVCache, generate, pick_next
from model.gpt import MLP, Block, TinyGPT
from model.norm import Norm
from model.positions import rope_table

MODELS: dict[str, tuple[type[GPTConfig], type[TinyGPT]]] = {"gpt": (GPTConfig, TinyGPT)}
"""The kinds of model that a checkpoint may hold: a config and what is built from it."""

__all__ = [
    "MLP",
    "MODELS",
    "Block",
    "CausalSelfAttention",
    "GPTConfig",
    "KVCache",
    "Norm",
    "TinyGPT",
    "few_rows",
    "generate",
    "pick_next",
    "rope_table",
]
