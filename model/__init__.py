"""ids -> logits. Opens no file, prints nothing, reads no environment; needs torch alone."""

from model.cache import KVCache
from model.config import GPTConfig
from model.fewrows import few_rows
from model.generate import generate, pick_next
from model.gpt import TinyGPT

__all__ = ["GPTConfig", "KVCache", "TinyGPT", "few_rows", "generate", "pick_next"]
